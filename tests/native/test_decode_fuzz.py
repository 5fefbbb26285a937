"""Mutated files through the decoder's C, compiled anew with AddressSanitizer."""

import io
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SOURCES = Path(__file__).resolve().parents[2] / "fastssd" / "native" / "src"
KERNELS = [
    "baseline",
    "baseline_header",
    "decode",
    "huffman",
    "idct",
    "jpeg_library",
    "jpeg_markers",
    "picture",
    "pool",
    "resize",
    "resize_kernels",
    "scratch",
    "weights",
]
KINDS = [
    {"subsampling": 0, "restart_marker_blocks": 3, "optimize": True},
    {"subsampling": 2, "restart_marker_blocks": 2},
    {"subsampling": 1, "restart_marker_blocks": 4},
    {"subsampling": 2},
    {"subsampling": 0, "progressive": True},
    {"subsampling": 2, "progressive": True, "restart_marker_blocks": 5},
    {"keep_rgb": True},
    {"mode": "L", "restart_marker_blocks": 3},
    {"mode": "CMYK"},
    {"size": (300, 200), "restart_marker_blocks": 8},
]


def write_files(folder):
    paths = []
    for number, kind in enumerate(KINDS):
        options = {"mode": "RGB", "size": (83 - number, 61 + number), "quality": 75, **kind}
        noise = np.random.default_rng(number).integers(0, 256, (9, 8, 3)).astype(np.uint8)
        image = Image.fromarray(noise).resize(options.pop("size"), Image.Resampling.BICUBIC)
        content = io.BytesIO()
        image.convert(options.pop("mode")).save(content, "JPEG", **options)
        paths.append(folder / f"{number}.jpg")
        paths[-1].write_bytes(content.getvalue())
    return paths


@pytest.fixture(scope="module")
def fuzzer(tmp_path_factory):
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("there is no gcc")
    program = tmp_path_factory.mktemp("fuzz") / "fuzz_decode"
    command = [
        *(compiler, "-std=gnu11", "-O1", "-g", "-fno-sanitize-recover=undefined"),
        *("-fsanitize=address,undefined", f"-I{SOURCES}", "-o", str(program)),
        str(Path(__file__).with_name("fuzz_decode.c")),
        *(str(SOURCES / f"{name}.c") for name in KERNELS),
        *("-ljpeg", "-lpthread", "-lm"),
    ]
    built = subprocess.run(command, capture_output=True, text=True)
    if built.returncode and ("asan" in built.stderr or "jpeglib.h" in built.stderr):
        pytest.skip(f"gcc cannot build it: {built.stderr.splitlines()[-1]}")
    assert built.returncode == 0, built.stderr
    return program


def test_mutated_files_give_pixels_or_a_reason_and_leave_their_neighbours_alone(fuzzer, tmp_path):
    files = write_files(tmp_path)

    run = subprocess.run([fuzzer, "2000", "1", *files], capture_output=True, text=True)

    assert run.returncode == 0, run.stderr[-3000:]
    num_damaged = int(run.stdout.split()[0])
    assert 500 < num_damaged < 2000
