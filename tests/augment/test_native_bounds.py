"""The native kernels under AddressSanitizer: no byte is read or written beside its array."""

import shutil
import subprocess
from pathlib import Path

import pytest

SOURCES = Path(__file__).resolve().parents[2] / "fastssd" / "native" / "src"

DRIVER = """
#include "augment.h"
#include <stdio.h>
#include <stdlib.h>

/* Each array is an allocation of its own, of just its size. */
static void *filled(size_t size) {
    unsigned char *bytes = malloc(size);
    for (size_t i = 0; i < size; i++)
        bytes[i] = (unsigned char)(i * 2654435761u >> 13);
    return bytes;
}

int main(void) {
    const int sides[] = {1, 2, 3, 7, 15, 16, 17, 31, 32, 33, 47, 48, 65, 100};
    enum { IMAGES = 8 };
    int jobs = 0;
    for (unsigned s = 0; s < sizeof sides / sizeof *sides; s++)
        for (int radius = 0; radius < sides[s]; radius += 1 + radius / 2)
            for (int has = 0; has < 16; has++) {
                size_t values = (size_t)IMAGES * sides[s] * sides[s] * 3;
                uint8_t *flip = filled(IMAGES), *gray = filled(IMAGES);
                float *jitter = malloc(IMAGES * 4 * sizeof *jitter);
                float *blur = malloc(IMAGES * sizeof *blur);
                int64_t *order = malloc(IMAGES * 4 * sizeof *order);
                int64_t *turns = malloc(IMAGES * sizeof *turns);
                for (int i = 0; i < IMAGES; i++) {
                    flip[i] &= 1, gray[i] &= 1, turns[i] = i % 4, blur[i] = (float)(i % 3 * 4);
                    for (int k = 0; k < 4; k++) {
                        order[4 * i + k] = (k + i) % 4;
                        jitter[4 * i + k] = (float)((i + k) % 5) / 8.0f;
                    }
                }
                struct fastssd_augmentation job = {
                    .num_images = IMAGES, .side = sides[s], .num_steps = 4, .blur_radius = radius,
                    .pixels = filled(values), .flip = has & 1 ? flip : NULL,
                    .jitter = has & 2 ? jitter : NULL, .order = has & 2 ? order : NULL,
                    .grayscale = has & 4 ? gray : NULL, .blur = has & 8 ? blur : NULL,
                    .turns = turns, .scale = {4, 4, 4}, .shift = {-2, -2, -2},
                    .finished = malloc(values * sizeof(float)),
                    .turned = has & 1 ? malloc(values * sizeof(float)) : NULL,
                };
                if (fastssd_augment(&job, 3) != 0)
                    return 1;
                jobs++;
                free((void *)job.pixels), free(job.finished), free(job.turned);
                free(flip), free(gray), free(jitter), free(blur), free(order), free(turns);
            }
    printf("%d jobs\\n", jobs);
    return 0;
}
"""


@pytest.mark.skipif(shutil.which("gcc") is None, reason="no C compiler")
def test_no_size_or_recipe_reads_or_writes_beside_its_arrays(tmp_path):
    driver, program = tmp_path / "driver.c", tmp_path / "driver"
    driver.write_text(DRIVER)
    sources = [str(SOURCES / name) for name in ("augment.c", "pool.c")]
    # Sanitizers start after the dynamic linker has chosen among clones, which they must not see.
    flags = ["-std=gnu11", "-O1", "-g", "-DFASTSSD_ONE_CLONE", "-fsanitize=address,undefined"]
    built = subprocess.run(
        [
            "gcc",
            *flags,
            f"-I{SOURCES}",
            str(driver),
            *sources,
            "-o",
            str(program),
            "-lm",
            "-pthread",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if built.returncode != 0 and "sanitize" in built.stderr + built.stdout:
        pytest.skip("the compiler has no sanitizers")
    assert built.returncode == 0, built.stderr

    result = subprocess.run(
        [str(program)],
        capture_output=True,
        text=True,
        env={"UBSAN_OPTIONS": "halt_on_error=1", "ASAN_OPTIONS": "detect_leaks=0"},
        check=False,
    )

    assert result.returncode == 0, result.stderr[-3000:]
    assert int(result.stdout.split()[0]) > 1000
