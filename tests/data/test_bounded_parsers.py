"""Parsers of what somebody else made work in proportion to its bytes: counted, not timed."""

import gzip
import io
import struct
import tarfile

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from operations import cost_of

from fastssd.data.sources.cifar import open_cifar
from fastssd.data.sources.plain_pickle import _STEPS, PlainPickleError, load_plain
from fastssd.data.sources.source import SourceOptions
from fastssd.data.sources.tar_members import MAX_HEADER_BYTES, TarError, read_members
from fastssd.errors import DataError


def array_pickle(data, times=1):
    """A pickle of arrays of a million bytes each, all over the same data."""
    array = b"cnumpy.core.multiarray\n_reconstruct\n)R(K\x01J\x40\x42\x0f\0\x85cnumpy\ndtype\n"
    array += b"U\x02u1\x85R\x89h\0tb"
    return b"\x80\x02" + data + b"q\0]" + (array + b"a") * times + b"."


def shared_lists(levels, references):
    """Lists of references to one list of references to one list ..."""
    content = b"\x80\x02]q\0"
    for level in range(levels):
        content += b"](" + b"h" + bytes([level]) + (b"h" + bytes([level])) * (references - 1)
        content += b"eq" + bytes([level + 1])
    return content + b"."


COLLIDING = b"".join(
    b"\x8a\x0a" + (k * ((1 << 61) - 1)).to_bytes(10, "little") + b"N" for k in range(1, 3000)
)
PICKLES = {
    "tuples in tuples as a key": b"\x80\x02})" + b"\x85" * 6_000 + b"K\x01s.",
    "tuples in tuples": b"\x80\x02)" + b"\x85" * 6_000 + b".",
    "lists in lists": b"\x80\x02" + b"]" * 6_000 + b"a" * 5_999 + b".",
    "shared lists": shared_lists(8, 20),
    "a list within itself": b"\x80\x02]q\0h\0a.",
    "a far place of the memo": b"\x80\x02]r" + struct.pack("<I", 1 << 29) + b".",
    "a far place of the memo as text": b"]p536870912\n.",
    "a number for an array's data": array_pickle(b"J\x40\x42\x0f\0"),
    "numbers that collide as keys": b"\x80\x02}(" + COLLIDING + b"u.",
    "a long key": b"\x80\x02}X" + struct.pack("<I", 9999) + b"k" * 9999 + b"q\0Ns" + b"h\0Ns" * 99,
    "many arrays of one text": array_pickle(b"T\x40\x42\x0f\0" + b"x" * 1_000_000, 50),
    "a long number": b"I" + b"1" * 100_000 + b"\n.",
    "a long name": b"c" + b"m" * 100_000 + b"\nname\n.",
    "a tuple as a name": b"\x80\x04)" + b"\x85" * 1000 + b"\x8c\x01n\x93.",
    "a shape of many sides": b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n)R(K\x01("
    + b"\x8a\x40"
    + b"\x7f" * 64
    + b"2" * 1000
    + b"tcnumpy\ndtype\nU\x02u1\x85R\x89U\0tb.",
    "more bytes than there are": b"\x80\x02\x8e" + struct.pack("<Q", 1 << 60) + b".",
    "a structured dtype": b"\x80\x02cnumpy\ndtype\nX"
    + struct.pack("<I", 60_000)
    + b"u1," * 6_000
    + b"\x85R.",
}


def check_pickle(content):
    cost = cost_of(load_plain, content, at_most=40 * len(content) + 2000)
    assert cost.peak_bytes < 100 * len(content) + 100_000
    return cost.outcome


@pytest.mark.parametrize("content", PICKLES.values(), ids=PICKLES)
def test_a_pickle_takes_no_more_time_and_memory_than_its_bytes_allow(content):
    outcome = check_pickle(content)

    assert isinstance(outcome, PlainPickleError | list)


INSTRUCTIONS = st.sampled_from(sorted(_STEPS)).map(
    lambda code: code + {b"c": b"numpy\ndtype\n", b"h": b"\0", b"U": b"\x02u1"}.get(code, b"\x01")
)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(INSTRUCTIONS | st.sampled_from([b"]", b"(", b")", b"h\0", b"2", b"e"]), max_size=40)
)
@example([b"]", b"q\0", b"h\0", b"a"])
def test_any_pickle_is_data_or_an_error_for_its_bytes(parts):
    outcome = check_pickle(b"".join(parts) + b".")

    assert not isinstance(outcome, Exception) or isinstance(outcome, PlainPickleError)


class Counting(io.BytesIO):
    """A file that counts what is read of it."""

    calls = 0
    num_bytes = 0

    def read(self, size=-1):
        content = super().read(size)
        self.calls += 1
        self.num_bytes += len(content)
        return content


def header(kind, size, *, name=b"name"):
    """The block of a member, by the book."""
    block = bytearray(512)
    block[: len(name)] = name
    block[124:136] = b"%011o\0" % size
    block[148:156] = b" " * 8
    block[156:157] = kind
    block[257:265] = b"ustar\x0000"
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def extended(content):
    """An archive of one empty file behind a pax header."""
    padded = content + bytes(-len(content) % 512)
    return header(b"x", len(content)) + padded + header(b"0", 0) + bytes(1024)


TARS = {
    "digits": extended(b"1" * 180_000),
    "blanks": extended(b" " * 180_000),
    "records of no length": extended(b"0 a=b\n" * 10_000),
    "a record behind the end": extended(b"99999999999999999999 a=b\n"),
    "many records": extended(b"11 path=ab\n" * 16_000),
    "long names one after another": (header(b"L", 500) + b"n" * 500 + bytes(12)) * 300,
    "a header of gigabytes": header(b"x", 3 << 30) + b"1" * 100_000,
    "a sparse map without an end": (header(b"S", 0)[:482] + b"\1" + bytes(29)) + b"\1" * 51_200,
    "a member behind the end": header(b"0", 1 << 32) + bytes(1024),
    "many empty members": header(b"0", 0) * 300 + bytes(1024),
}


@pytest.mark.parametrize("content", TARS.values(), ids=TARS)
def test_an_archive_is_read_once_whatever_its_headers_say(content):
    file = Counting(content)

    def names():
        return [member.name for member in read_members(file, limit=len(content))]

    cost = cost_of(names, at_most=len(content) + 5000)

    assert file.num_bytes <= len(content)
    assert file.calls <= len(content) // 512 + 2
    assert cost.peak_bytes < 10 * len(content) + 100_000
    assert isinstance(cost.outcome, list | TarError)


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_members_are_those_that_pythons_own_reader_finds(format, data):
    longest = 90 if format == tarfile.USTAR_FORMAT else 300
    names = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1)
    kinds = st.sampled_from([tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE])
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=format) as tar:
        for name, kind, size in data.draw(st.lists(st.tuples(names, kinds, st.integers(0, 1500)))):
            path = f"folder/{name * 60}".encode()[:longest].decode("utf-8", "ignore")
            member = tarfile.TarInfo(path)
            member.type, member.linkname = kind, "x" * (longest - 1)
            member.size = size if kind == tarfile.REGTYPE else 0
            tar.addfile(member, io.BytesIO(b"1" * size))
    archive.seek(0)
    with tarfile.open(fileobj=archive) as tar:
        expected = [(m.name, m.offset_data, m.size, m.isreg()) for m in tar]
    archive.seek(0)

    found = list(read_members(archive, limit=len(archive.getvalue())))

    assert [(m.name.rstrip("/"), m.start, m.size, m.is_file) for m in found] == expected


def test_an_archive_is_unpacked_no_further_than_it_may(tmp_path):
    archive = tmp_path / "cifar-10-python.tar.gz"
    for content in (
        header(b"x", 1 << 30) + bytes(1 << 20),
        header(b"0", 1 << 30, name=b"test_batch") + bytes(1 << 20),
        header(b"0", 0) * 1001 + bytes(1024),
        header(b"0", MAX_HEADER_BYTES, name=b"test_batch") + bytes(1 << 10),
    ):
        archive.write_bytes(gzip.compress(content, 1))

        cost = cost_of(open_cifar, str(archive), SourceOptions(), at_most=200_000)

        assert isinstance(cost.outcome, DataError)
        assert "cifar-10-python.tar.gz: damaged: it " in str(cost.outcome)
        assert cost.peak_bytes < 4 << 20
