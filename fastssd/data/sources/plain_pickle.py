"""Reading pickles of arrays, numbers, text and containers, without running what they ask for.

A pickle is a program for a machine with a stack. This is that machine with what plain data needs
and nothing else: it calls no function that a pickle names, and NumPy sees no state that a pickle
gives. Every step takes bytes of the pickle and does work and takes memory in proportion to them.
That forbids more than code: what a pickle refers to twice is shared, not copied, and keys are short
text, since hashing and comparing others can take any time, or more stack than there is.
"""

import codecs
import math
import re
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MAX_DEPTH = 8
_MAX_DIMENSIONS = 8
_MAX_KEY = 1000  # characters
_MAX_DIGITS = 1000  # of a number that is written as text
_DTYPE = re.compile(r"[biuf][1248]")

# What reading damaged bytes leads to.
_DAMAGE = (LookupError, TypeError, ValueError, ArithmeticError, struct.error, MemoryError)


class PlainPickleError(ValueError):
    """A pickle is damaged or asks for something else than plain data."""


def load_plain(content: bytes) -> Any:  # noqa: ANN401 - whatever plain data it holds
    """Return what a pickle holds. Text of Python 2 becomes str, byte by byte.

    Raises:
        PlainPickleError: If it is damaged or names anything but plain data.
    """
    try:
        value = _Machine(content).run()
    except PlainPickleError:
        raise
    except _DAMAGE as error:
        raise PlainPickleError(f"it is a damaged pickle: {error}") from error
    _check(value)
    return value


class _Name:
    """Stands for a function or class that a pickle names."""

    def __init__(self, call: "Callable[..., Any] | None") -> None:
        self.call = call


class _Dtype:
    """Stands for a dtype of numbers."""

    def __init__(self, name: Any) -> None:  # noqa: ANN401
        if not isinstance(name, str) or not _DTYPE.fullmatch(name.lstrip("<>|=")[:3]):
            raise PlainPickleError("it holds an array of something else than numbers")
        self.value = np.dtype(name)


class _Array:
    """Stands for an array until its content is known."""

    value: NDArray[Any] | None = None


class _Machine:
    """Runs one pickle.

    Args:
        content: The pickle.
    """

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._at = 0
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}
        # Text is turned into bytes once for each array or value, but one text can be named often.
        self._left_to_copy = len(content)

    def run(self) -> Any:  # noqa: ANN401
        """Return the value that the pickle leaves."""
        steps = _STEPS
        while True:
            code = self._content[self._at : self._at + 1]
            self._at += 1
            if code == b".":
                return _filled(self._stack.pop())
            step = steps.get(code)
            if step is None:
                raise PlainPickleError(
                    f"it ends or holds the instruction {code!r}, which plain data does not need; "
                    "nothing was run"
                )
            step(self)

    # Reading from the pickle

    def _take(self, num_bytes: int) -> bytes:
        taken = self._content[self._at : self._at + num_bytes]
        if len(taken) != num_bytes:
            raise PlainPickleError("it is a damaged pickle: it is cut short")
        self._at += num_bytes
        return taken

    def _number(self, layout: str) -> Any:  # noqa: ANN401
        return struct.unpack(layout, self._take(struct.calcsize(layout)))[0]

    def _counted(self, layout: str) -> bytes:
        return self._take(self._number(layout))

    def _line(self) -> bytes:
        end = self._content.index(b"\n", self._at)
        line, self._at = self._content[self._at : end], end + 1
        return line

    def _digits(self) -> bytes:
        line = self._line()
        if len(line) > _MAX_DIGITS:
            raise PlainPickleError(f"it holds a number of {len(line)} digits")
        return line

    # The stack

    def _push(self, value: Any) -> None:  # noqa: ANN401
        self._stack.append(value)

    def _pop(self) -> Any:  # noqa: ANN401
        if self._marks and self._marks[-1] == len(self._stack):
            raise PlainPickleError("it is a damaged pickle: it takes more than it gave")
        return self._stack.pop()

    def _pop_to_mark(self) -> list[Any]:
        mark = self._marks.pop()
        taken = self._stack[mark:]
        del self._stack[mark:]
        return taken

    def mark(self) -> None:
        self._marks.append(len(self._stack))

    def pop(self) -> None:
        if self._marks and self._marks[-1] == len(self._stack):
            self._marks.pop()
        else:
            self._stack.pop()

    def repeat(self) -> None:
        self._push(self._stack[-1])

    # Numbers and text

    def integer_line(self) -> None:
        line = self._digits()
        booleans = {b"00": False, b"01": True}
        self._push(booleans[line] if line in booleans else int(line.rstrip(b"L")))

    def long_integer(self, layout: str) -> None:
        self._push(int.from_bytes(self._counted(layout), "little", signed=True))

    def string_line(self) -> None:
        quoted = self._line()
        if len(quoted) < 2 or quoted[0] != quoted[-1] or quoted[:1] not in (b"'", b'"'):
            raise PlainPickleError("it is a damaged pickle: text without quotes")
        if b"\\" in quoted:
            quoted = codecs.escape_decode(quoted)[0]
        self._push(quoted[1:-1].decode("latin-1"))

    # Containers

    def tuple_of(self, count: int) -> None:
        items = [self._pop() for _ in range(count)]
        self._push(tuple(map(_filled, reversed(items))))

    def tuple_of_marked(self) -> None:
        self._push(tuple(map(_filled, self._pop_to_mark())))

    def append(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if type(target) is not list:
            raise PlainPickleError("it is a damaged pickle: it appends to what is no list")
        target.extend(map(_filled, items))

    def set_items(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if type(target) is not dict or len(items) % 2:
            raise PlainPickleError("it is a damaged pickle: it sets items of what is no dictionary")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, str | bytes) or len(key) > _MAX_KEY:
                raise PlainPickleError(
                    f"it holds a dictionary with another key than text of at most {_MAX_KEY} "
                    "characters"
                )
            target[key] = _filled(value)

    def dictionary_of_marked(self) -> None:
        items = self._pop_to_mark()
        self._push({})
        self.set_items(items)

    def set_item(self) -> None:
        value, key = self._pop(), self._pop()
        self.set_items([key, value])

    # The memo

    def put(self, index: int) -> None:
        if index > len(self._content):
            raise PlainPickleError(f"it numbers a value {index}, but has no room for so many")
        self._memo[index] = self._stack[-1]

    def get(self, index: int) -> None:
        self._push(self._memo[index])

    # Arrays

    def name(self, module: Any, name: Any) -> None:  # noqa: ANN401
        if not isinstance(module, str) or not isinstance(name, str):
            raise PlainPickleError("it is a damaged pickle: a name that is no text")
        if (module, name) not in _NAMES:
            raise PlainPickleError(
                f"it asks for {module[:80]}.{name[:80]}, which plain data does not need; nothing "
                "was run"
            )
        self._push(_NAMES[module, name])

    def name_on_stack(self) -> None:
        name, module = self._pop(), self._pop()
        self.name(module, name)

    def call(self) -> None:
        arguments, function = self._pop(), self._pop()
        if not isinstance(function, _Name) or function.call is None:
            raise PlainPickleError("it calls what is no function of plain data; nothing was run")
        if not isinstance(arguments, tuple):
            raise PlainPickleError("it is a damaged pickle: a call without arguments")
        self._push(function.call(self, *arguments))

    def build(self) -> None:
        state, target = self._pop(), self._stack[-1]
        if isinstance(target, _Dtype):
            if state[1] in ("<", ">"):  # the rest says what the name says
                target.value = target.value.newbyteorder(state[1])
        elif isinstance(target, _Array):
            _, shape, dtype, by_columns, data = state
            target.value = self.array(data, dtype, shape, "F" if by_columns else "C")
        else:
            raise PlainPickleError("it tries to change what reads it, or plain data")

    def array(self, data: Any, dtype: Any, shape: Any, order: Any) -> NDArray[Any]:  # noqa: ANN401
        """Return an array over bytes of the pickle."""
        content = self.latin1(data) if isinstance(data, str) else data
        if not isinstance(content, bytes):
            raise PlainPickleError("it holds an array whose content is not bytes")
        if not isinstance(dtype, _Dtype):
            raise PlainPickleError("it holds an array without a dtype")
        sides = shape if isinstance(shape, tuple) else ()
        if len(sides) > _MAX_DIMENSIONS or not all(
            type(side) is int and 0 <= side < 1 << 40 for side in sides
        ):
            raise PlainPickleError("it holds an array of an impossible shape")
        if math.prod(sides) * dtype.value.itemsize != len(content):
            raise PlainPickleError(f"it holds {len(content)} bytes for an array of shape {sides}")
        array: NDArray[Any] = np.frombuffer(content, dtype=dtype.value)
        return array.reshape(sides, order="F" if order == "F" else "C")

    def latin1(self, text: Any, encoding: Any = "latin1") -> bytes:  # noqa: ANN401
        """Return bytes that Python 3 wrote for Python 2. Other codecs could make gigabytes."""
        if encoding not in ("latin1", "latin-1"):
            raise PlainPickleError("it asks for another codec than latin1")
        if not isinstance(text, str):
            raise PlainPickleError("it asks for bytes of what is no text")
        self._left_to_copy -= len(text)
        if self._left_to_copy < 0:
            raise PlainPickleError("it asks for more bytes than it holds")
        return text.encode("latin-1")

    def no_bytes(self) -> bytes:
        """Return what Python 3 writes for Python 2 as a call without arguments: empty bytes."""
        return b""

    def scalar(self, dtype: Any, data: Any) -> Any:  # noqa: ANN401
        return self.array(data, dtype, (1,), "C")[0]

    def array_of_buffer(self, data: Any, dtype: Any, shape: Any, order: Any) -> _Array:  # noqa: ANN401
        array = _Array()
        array.value = self.array(data, dtype, shape, order)
        return array


def _filled(value: Any) -> Any:  # noqa: ANN401
    """Return an array in place of what stands for it."""
    return value.value if isinstance(value, _Array) and value.value is not None else value


def _check(value: Any) -> None:  # noqa: ANN401
    """Check that there is nothing but data, and nothing deeper than a reader may go.

    What is shared is looked at once.
    """
    level, seen = [value], set[int]()
    for _ in range(_MAX_DEPTH + 2):
        if any(isinstance(each, _Name | _Dtype | _Array) for each in level):
            raise PlainPickleError("it holds a function, a dtype or an array without content")
        containers = {id(each): each for each in level if isinstance(each, dict | list | tuple)}
        new = containers.keys() - seen
        if not new:
            return
        seen |= new
        level = []
        for each in new:
            inner = containers[each]
            level.extend(inner.values() if isinstance(inner, dict) else inner)
    raise PlainPickleError(f"it is nested more than {_MAX_DEPTH} deep")


_NAMES = {
    ("numpy", "ndarray"): _Name(None),
    ("numpy", "dtype"): _Name(lambda machine, name, *flags: _Dtype(name)),
    ("_codecs", "encode"): _Name(_Machine.latin1),
    ("__builtin__", "bytes"): _Name(_Machine.no_bytes),
}
for _core in ("core", "_core"):  # NumPy 1 and 2
    _multiarray = f"numpy.{_core}.multiarray"
    _NAMES[_multiarray, "_reconstruct"] = _Name(lambda machine, *empty: _Array())
    _NAMES[_multiarray, "scalar"] = _Name(_Machine.scalar)
    _NAMES[f"numpy.{_core}.numeric", "_frombuffer"] = _Name(_Machine.array_of_buffer)

_STEPS: dict[bytes, Callable[[_Machine], object]] = {
    b"\x80": lambda m: m._take(1),  # the protocol
    b"\x95": lambda m: m._take(8),  # a frame's length, which is for reading from streams
    b"(": _Machine.mark,
    b"0": _Machine.pop,
    b"1": _Machine._pop_to_mark,
    b"2": _Machine.repeat,
    b"N": lambda m: m._push(None),
    b"\x88": lambda m: m._push(True),
    b"\x89": lambda m: m._push(False),
    b"I": _Machine.integer_line,
    b"L": _Machine.integer_line,
    b"J": lambda m: m._push(m._number("<i")),
    b"K": lambda m: m._push(m._number("<B")),
    b"M": lambda m: m._push(m._number("<H")),
    b"\x8a": lambda m: m.long_integer("<B"),
    b"\x8b": lambda m: m.long_integer("<I"),
    b"F": lambda m: m._push(float(m._digits())),
    b"G": lambda m: m._push(m._number(">d")),
    b"S": _Machine.string_line,
    b"T": lambda m: m._push(m._counted("<I").decode("latin-1")),
    b"U": lambda m: m._push(m._counted("<B").decode("latin-1")),
    b"V": lambda m: m._push(m._line().decode("raw-unicode-escape")),
    b"X": lambda m: m._push(m._counted("<I").decode("utf-8", "surrogatepass")),
    b"\x8c": lambda m: m._push(m._counted("<B").decode("utf-8", "surrogatepass")),
    b"\x8d": lambda m: m._push(m._counted("<Q").decode("utf-8", "surrogatepass")),
    b"B": lambda m: m._push(m._counted("<I")),
    b"C": lambda m: m._push(m._counted("<B")),
    b"\x8e": lambda m: m._push(m._counted("<Q")),
    b"\x96": lambda m: m._push(m._counted("<Q")),
    b"]": lambda m: m._push([]),
    b"a": lambda m: m.append([m._pop()]),
    b"e": lambda m: m.append(m._pop_to_mark()),
    b"l": lambda m: m._push([_filled(item) for item in m._pop_to_mark()]),
    b")": lambda m: m._push(()),
    b"t": _Machine.tuple_of_marked,
    b"\x85": lambda m: m.tuple_of(1),
    b"\x86": lambda m: m.tuple_of(2),
    b"\x87": lambda m: m.tuple_of(3),
    b"}": lambda m: m._push({}),
    b"s": _Machine.set_item,
    b"u": lambda m: m.set_items(m._pop_to_mark()),
    b"d": _Machine.dictionary_of_marked,
    b"g": lambda m: m.get(int(m._digits())),
    b"h": lambda m: m.get(m._number("<B")),
    b"j": lambda m: m.get(m._number("<I")),
    b"p": lambda m: m.put(int(m._digits())),
    b"q": lambda m: m.put(m._number("<B")),
    b"r": lambda m: m.put(m._number("<I")),
    b"\x94": lambda m: m.put(len(m._memo)),
    b"c": lambda m: m.name(m._line().decode(), m._line().decode()),
    b"\x93": _Machine.name_on_stack,
    b"R": _Machine.call,
    b"b": _Machine.build,
}
