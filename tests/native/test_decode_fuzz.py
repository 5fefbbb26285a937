"""Mutated files through the decoder, the check and the rewriting, against libjpeg itself.

All in C (`fuzz_jpeg.c` has what must hold), compiled with the kernels under AddressSanitizer. The
same program without it runs long: `docs/decisions/0011-native-decoder.md`.
"""

import shutil
import subprocess
from pathlib import Path

import pytest
from small_jpegs import grey_jpeg, picture_jpeg, scan, segment

HERE = Path(__file__).parent
SOURCES = HERE.parents[1] / "fastssd" / "native" / "src"
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
    "transcode",
    "transcode_read",
    "transcode_write",
    "walk",
    "walk_looks",
    "weights",
]


def write_unusual_files(folder):
    """Write files of kinds that no encoder writes, all of them sound."""
    dc, ac = {"0": 0, "10": 11, "110": 15}, {"0": 0x00, "10": 0xF1, "110": 0x0F}
    large = {"dc": dc, "ac": ac, "quantiser": 65535}
    ones = "1" * 15
    beyond = "0" + "101" * 4  # zeros, and a value, beyond the block's last coefficient
    plain, progressive = picture_jpeg(), picture_jpeg(progressive=True)
    restart = picture_jpeg(restart_marker_blocks=2)
    marker = restart.index(b"\xff\xd2")
    stuffed = plain.index(b"\xff\0", plain.index(b"\xff\xda"))
    second_scan = progressive.index(b"\xff\xda", progressive.index(b"\xff\xda") + 2)
    behind = b"\xff\xd0" + segment(0xFE, b"comment") + b"\xff\xff\xd9"
    contents = [
        grey_jpeg(scan([f"10{ones[:11]}0" * 100]), size=(80, 80), **large),
        grey_jpeg(scan([f"110{ones}110{ones}0"] * 40), size=(64, 40), interval=1, **large),
        grey_jpeg(scan([beyond * 30, beyond * 30]), size=(80, 48), interval=30, **large),
        grey_jpeg(scan([f"0110{'0' * 15}0"] * 60), size=(48, 80), interval=1, **large),
        plain[:stuffed] + b"\xff\xff" + plain[stuffed:],
        plain[:stuffed] + b"\xff\xff" + plain[stuffed:] + bytes(9000),  # libjpeg's fast path
        plain[:-2] + behind,
        plain[:-2] + b"\0\0\0" + behind,
        restart[:marker] + b"\0" + restart[marker:],
        progressive[:second_scan] + b"\xff\xd9",
    ]
    paths = [folder / f"unusual{number}.jpg" for number in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    return paths


@pytest.fixture(scope="module", params=["gcc", "clang"])
def fuzzer(tmp_path_factory, request):
    compiler = shutil.which(request.param)
    if compiler is None:
        pytest.skip(f"there is no {request.param}")
    program = tmp_path_factory.mktemp("fuzz") / "fuzz_jpeg"
    command = [
        *(compiler, "-std=gnu11", "-O1", "-g", "-fno-sanitize-recover=undefined"),
        *("-fsanitize=address,undefined", f"-I{SOURCES}", "-o", str(program)),
        *map(str, sorted(HERE.glob("fuzz_*.c"))),
        *(str(SOURCES / f"{name}.c") for name in KERNELS),
        *("-ljpeg", "-lpthread", "-lm"),
    ]
    built = subprocess.run(command, capture_output=True, text=True)
    if built.returncode and ("asan" in built.stderr or "jpeglib.h" in built.stderr):
        pytest.skip(f"{compiler} cannot build it: {built.stderr.splitlines()[-1]}")
    assert built.returncode == 0, built.stderr
    return program


def test_a_file_has_libjpegs_pixels_before_and_after_rewriting_or_is_refused(fuzzer, tmp_path):
    unusual = write_unusual_files(tmp_path)

    run = subprocess.run([fuzzer, "2500", "1", *unusual], capture_output=True, text=True)

    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    originals, mutated = (line.split() for line in run.stdout.splitlines()[-2:])
    assert int(originals[2]) - int(originals[0]) == 2  # those of fractional samplings
    assert 300 < int(mutated[0]) < 2000
