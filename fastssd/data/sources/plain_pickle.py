"""Reading pickles of arrays, numbers, text and containers, without running what they ask for.

A pickle can name any function and have it called, and NumPy's own objects trust the state that a
pickle gives them. So this reader knows a handful of names only, all that an array needs, and gives
stand-ins of its own for them: no code but this module's sees what the pickle says.
"""

import io
import math
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

_KINDS = "biuf"
_MAX_DEPTH = 8


class PlainPickleError(ValueError):
    """A pickle is damaged or asks for something else than plain data."""


def load_plain(content: bytes) -> Any:  # noqa: ANN401 - whatever plain data it holds
    """Return what a pickle holds. Text of Python 2 becomes str, byte by byte.

    Raises:
        PlainPickleError: If it is damaged or names anything but plain data.
    """
    try:
        return _resolved(_PlainUnpickler(io.BytesIO(content), encoding="latin-1").load(), 0)
    except PlainPickleError:
        raise
    except Exception as error:
        # The unpickler raises whatever the damaged bytes lead to: there is no list of it.
        raise PlainPickleError(f"it is a damaged pickle: {error}") from error


class _Dtype:
    """Stands for a dtype of numbers."""

    def __init__(self, name: str, *flags: object) -> None:
        self.value = np.dtype(str(name))
        if self.value.kind not in _KINDS:
            raise PlainPickleError(f"it holds an array of {self.value}, not of numbers")

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] in ("<", ">"):  # the rest says what the name says
            self.value = self.value.newbyteorder(state[1])


class _Array:
    """Stands for an array until its shape and bytes are known."""

    value: NDArray[Any]

    def __init__(self, *empty: object) -> None:
        self.value = np.empty(0)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, by_columns, data = state
        self.value = _filled(data, dtype, shape, "F" if by_columns else "C")


class _Maker:
    """A function that a pickle may call, but not change."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *arguments: Any) -> Any:  # noqa: ANN401
        return self._function(*arguments)

    def __setstate__(self, state: object) -> None:
        raise PlainPickleError("it tries to change the function that reads it")


def _filled(data: Any, dtype: Any, shape: Any, order: str) -> NDArray[Any]:  # noqa: ANN401
    content = data.encode("latin-1") if isinstance(data, str) else bytes(data)
    if not isinstance(dtype, _Dtype):
        raise PlainPickleError("it holds an array without a dtype")
    sides = tuple(int(side) for side in shape)
    if min(sides, default=0) < 0 or math.prod(sides) * dtype.value.itemsize != len(content):
        raise PlainPickleError(f"it holds {len(content)} bytes for an array of shape {sides}")
    array: NDArray[Any] = np.frombuffer(content, dtype=dtype.value)
    return array.reshape(sides, order="F" if order == "F" else "C")


def _encode(text: str, encoding: str = "latin1") -> bytes:
    """Return bytes that Python 3 wrote for Python 2. Other codecs could unpack to gigabytes."""
    if encoding.lower().replace("-", "") != "latin1":
        raise PlainPickleError(f"it asks for the codec {encoding!r}")
    return text.encode("latin-1")


def _no_bytes(*nothing: object) -> bytes:
    """Return what Python 3 writes for Python 2 as a call without arguments: empty bytes."""
    if nothing:
        raise PlainPickleError("it asks for a call of bytes()")
    return b""


def _scalar(dtype: Any, data: Any) -> Any:  # noqa: ANN401
    return _filled(data, dtype, (1,), "C")[0]


def _array_of_buffer(data: Any, dtype: Any, shape: Any, order: str) -> _Array:  # noqa: ANN401
    array = _Array()
    array.value = _filled(data, dtype, shape, order)
    return array


_ALLOWED = {
    ("numpy", "ndarray"): _Maker(_Array),
    ("numpy", "dtype"): _Maker(_Dtype),
    ("_codecs", "encode"): _Maker(_encode),
    ("__builtin__", "bytes"): _Maker(_no_bytes),
}
for _core in ("core", "_core"):  # NumPy 1 and 2
    _ALLOWED[f"numpy.{_core}.multiarray", "_reconstruct"] = _Maker(_Array)
    _ALLOWED[f"numpy.{_core}.multiarray", "scalar"] = _Maker(_scalar)
    _ALLOWED[f"numpy.{_core}.numeric", "_frombuffer"] = _Maker(_array_of_buffer)


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:  # noqa: ANN401
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise PlainPickleError(
                f"it asks for {module}.{name}, which plain data does not need; nothing was run"
            ) from None


def _resolved(value: Any, depth: int) -> Any:  # noqa: ANN401
    """Put the arrays in place of their stand-ins."""
    if depth > _MAX_DEPTH:
        raise PlainPickleError(f"it is nested more than {_MAX_DEPTH} deep")
    if isinstance(value, _Array):
        return value.value
    if isinstance(value, dict):
        return {key: _resolved(entry, depth + 1) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_resolved(entry, depth + 1) for entry in value)
    return value
