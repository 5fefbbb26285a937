"""Mutated files through the decoder's C, compiled anew with AddressSanitizer."""

import io
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_jpegs import grey_jpeg, scan, segment

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


def write_unusual_files(folder):
    """Write sound files of kinds that no encoder writes."""
    dc, ac = {"0": 0, "10": 11, "110": 15}, {"0": 0x00, "10": 0xF1, "110": 0x0F}
    large = {"dc": dc, "ac": ac, "quantiser": 65535}
    ones = "1" * 15
    beyond = "0" + "101" * 4  # zeros, and a value, beyond the block's last coefficient
    plain, progressive = (path.read_bytes() for path in write_files(folder)[3:5])
    stuffed = plain.index(b"\xff\0", plain.index(b"\xff\xda"))
    second_scan = progressive.index(b"\xff\xda", progressive.index(b"\xff\xda") + 2)
    contents = [
        grey_jpeg(scan([f"10{ones[:11]}0" * 100]), size=(80, 80), **large),
        grey_jpeg(scan([f"110{ones}110{ones}0"] * 40), size=(64, 40), interval=1, **large),
        grey_jpeg(scan([beyond * 30, beyond * 30]), size=(80, 48), interval=30, **large),
        grey_jpeg(scan([f"0110{'0' * 15}0"] * 60), size=(48, 80), interval=1, **large),
        plain[:stuffed] + b"\xff\xff" + plain[stuffed:],
        plain[:-2] + b"\xff\xd0" + segment(0xFE, b"comment") + b"\xff\xff\xd9",
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
        pytest.skip(f"{compiler} cannot build it: {built.stderr.splitlines()[-1]}")
    assert built.returncode == 0, built.stderr
    return program


def test_mutated_files_give_pixels_or_a_reason_and_leave_their_neighbours_alone(fuzzer, tmp_path):
    files = write_files(tmp_path)

    run = subprocess.run([fuzzer, "2000", "1", *files], capture_output=True, text=True)

    assert run.returncode == 0, run.stderr[-3000:]
    num_damaged = int(run.stdout.split()[0])
    assert 500 < num_damaged < 2000


def test_unusual_files_keep_within_their_numbers(fuzzer, tmp_path):
    run = subprocess.run(
        [fuzzer, "500", "2", *write_unusual_files(tmp_path)], capture_output=True, text=True
    )

    assert run.returncode == 0, run.stderr[-3000:]
