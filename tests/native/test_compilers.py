"""The kernels under compilers and C libraries other than the one that built them."""

import shutil
import subprocess
from pathlib import Path

import pytest

SOURCES = Path(__file__).resolve().parents[2] / "fastssd" / "native" / "src"
NAMES = sorted(path.name for path in SOURCES.glob("*.c"))
GCC, CLANG = shutil.which("gcc"), shutil.which("clang")

NOT_GLIBC = """
#include_next <features.h>
#undef __GLIBC__
"""


def compiled(compiler, name, *flags):
    """Return the assembly."""
    run = subprocess.run(
        [compiler, "-std=gnu11", *flags, "-S", "-o", "-", str(SOURCES / name)],
        capture_output=True,
        text=True,
        check=False,
    )
    if "jpeglib.h" in run.stderr:
        pytest.skip("libjpeg's headers are missing")
    assert run.returncode == 0, run.stderr
    return run.stdout, run.stderr


@pytest.mark.skipif(GCC is None, reason="no gcc")
@pytest.mark.parametrize("name", NAMES)
def test_an_older_gcc_is_not_asked_for_clones_that_it_does_not_know(name):
    # This one says that it is 11, which knows no `target_clones` of "arch=x86-64-v3".
    assembly, _ = compiled(GCC, name, "-U__GNUC__", "-D__GNUC__=11", "-w")
    assert "x86_64_v3" not in assembly


@pytest.mark.skipif(GCC is None, reason="no gcc")
@pytest.mark.parametrize("name", NAMES)
def test_a_linker_that_cannot_choose_is_given_no_choice(name, tmp_path):
    # As with musl, which says that it is not glibc by saying nothing.
    (tmp_path / "features.h").write_text(NOT_GLIBC)
    assembly, _ = compiled(GCC, name, f"-I{tmp_path}")
    assert "gnu_indirect_function" not in assembly


@pytest.mark.skipif(CLANG is None, reason="no clang")
@pytest.mark.parametrize("name", NAMES)
def test_clang_compiles_without_a_warning(name):
    _, complaints = compiled(CLANG, name, "-Wall", "-Wextra")
    assert complaints == ""
