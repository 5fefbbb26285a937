"""Finding the compiled kernels: one shared library, opened once; users declare its functions."""

import ctypes
from collections.abc import Sequence
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

INSTALL = (
    "install a C compiler and libjpeg-turbo's headers (Debian: gcc libjpeg62-turbo-dev), then "
    "`pip install -e .` again"
)
"""What to do where the kernels are missing."""

ABI = 1
"""Version of the functions' signatures; a library of another was built from other sources."""


@cache
def library() -> ctypes.CDLL | None:
    """Return the compiled kernels, or None where they were not built; `problem` says why.

    Calls through it release the GIL.
    """
    return _opened()[0]


def problem() -> str:
    """Return why there are no kernels; empty where there are."""
    return _opened()[1]


def function(name: str, *, arguments: Sequence[Any], result: Any) -> Any:  # noqa: ANN401 ctypes' own types
    """Return a kernel as a callable.

    Raises:
        RuntimeError: If the kernels are missing, or have no such function.
    """
    kernels = library()
    if kernels is None:
        raise RuntimeError(f"{problem()}; {INSTALL}")
    try:
        found = getattr(kernels, name)
    except AttributeError:
        raise RuntimeError(f"the native kernels have no {name}: {INSTALL}") from None
    found.argtypes, found.restype = list(arguments), result
    return found


@cache
def _opened() -> tuple[ctypes.CDLL | None, str]:
    folder = Path(__file__).parent
    paths = [folder / f"_kernels{suffix}" for suffix in EXTENSION_SUFFIXES]
    path = next((path for path in paths if path.exists()), None)
    if path is None:
        return None, "the native kernels were not built"
    try:
        kernels = ctypes.CDLL(str(path))
        version = kernels.fastssd_abi()
    except (OSError, AttributeError) as error:
        return None, f"the native kernels cannot be loaded ({error})"
    if version != ABI:
        return None, f"the native kernels are of version {version}, not {ABI}"
    return kernels, ""
