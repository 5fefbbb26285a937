import contextlib
import errno
import resource

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from operations import cost_of

from fastssd.data.storage.files import load_array, map_pixels, save_array
from fastssd.errors import DataError


def test_a_saved_array_loads_again(tmp_path):
    array = np.arange(12, dtype=np.int32).reshape(3, 4)
    save_array(tmp_path / "a.npy", array)
    assert np.array_equal(load_array(tmp_path / "a.npy", dtype=np.int32, ndim=2), array)


@pytest.mark.parametrize("dtype", ["u1", "<i4", "<i8", "<f4"])
@pytest.mark.parametrize("shape", [(3,), (0, 2), (2, 3), (1, 2, 3, 4)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_what_numpy_wrote_is_read(tmp_path, dtype, shape, order):
    array = np.arange(np.prod(shape)).astype(dtype).reshape(shape).copy(order)
    np.save(tmp_path / "a.npy", array)
    loaded = load_array(tmp_path / "a.npy", dtype=np.dtype(dtype).type, ndim=len(shape))
    assert np.array_equal(loaded, array)


def npy(header, content=b"", version=b"\1\0", length=None):
    """A .npy file by the book, with any header."""
    length = len(header) if length is None else length
    size = length.to_bytes(2 if version == b"\1\0" else 4, "little")
    return b"\x93NUMPY" + version + size + header.encode("latin-1") + content


HEADER = "{{'descr': {}, 'fortran_order': {}, 'shape': {}, }}\n".format
BROKEN = {
    "nothing": b"",
    "another magic": b"PK\3\4" + bytes(100),
    "no dictionary": npy("hello\n"),
    "nested too deep": npy("(" * 9000),
    "longer than NumPy reads": npy(" " * 60_000 + HEADER("'<i4'", False, (2,)), bytes(8)),
    "a header of gigabytes": npy("{", version=b"\2\0", length=4_000_000_000),
    "objects": npy(HEADER("'|O'", False, (2,)), bytes(16)),
    "another type": npy(HEADER("'<i8'", False, (1,)), bytes(8)),
    "more values than bytes": npy(HEADER("'<i4'", False, (1 << 40,)), bytes(8)),
    "fewer values than bytes": npy(HEADER("'<i4'", False, (1,)), bytes(8)),
    "a shape of many digits": npy(HEADER("'<i4'", False, (10**30,)), bytes(8)),
    "a negative shape": npy(HEADER("'<i4'", False, (-2,)), bytes(8)),
    "more dimensions": npy(HEADER("'<i4'", False, (2, 1)), bytes(8)),
    "no dimensions": npy(HEADER("'<i4'", False, ()), bytes(4)),
    "a shape that is none": npy(HEADER("'<i4'", False, "'2'"), bytes(8)),
    "a type that is none": npy(HEADER("('<i4', (3, 4)", False, (2,)), bytes(8)),
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_a_broken_header_is_an_error_that_names_the_file_and_takes_no_memory(tmp_path, content):
    path = tmp_path / "a.npy"
    path.write_bytes(content)

    cost = cost_of(lambda: load_array(path, dtype=np.int32, ndim=1), at_most=100_000)

    assert isinstance(cost.outcome, DataError)
    assert str(cost.outcome).startswith(f"{path}: damaged: ")
    assert cost.peak_bytes < 10 << 20


@given(st.binary(max_size=20), st.integers(0, 140))
def test_any_damage_of_an_array_is_an_error_or_an_array_of_its_type(tmp_path_factory, part, at):
    path = tmp_path_factory.getbasetemp() / "any.npy"
    save_array(path, np.arange(6, dtype=np.int32).reshape(2, 3))
    content = bytearray(path.read_bytes())
    content[at : at + len(part)] = part
    path.write_bytes(content)
    with contextlib.suppress(DataError):
        array = load_array(path, dtype=np.int32, ndim=2)
        assert (array.dtype, array.size) == (np.int32, 6)


@pytest.mark.parametrize("shape", [(0, 2, 2, 3), (2, 0, 2, 3), (2, 2, 2, 4)])
def test_images_of_another_form_are_not_mapped(tmp_path, shape):
    save_array(tmp_path / "a.npy", np.zeros(shape, np.uint8))
    with pytest.raises(DataError, match=r"a\.npy: damaged: it holds"):
        map_pixels(tmp_path / "a.npy")


def test_an_array_that_the_disk_has_no_room_for_says_why_and_where(tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, limits[1]))
    try:
        with pytest.raises(OSError, match=r"File too large: .*a\.npy") as caught:
            save_array(tmp_path / "a.npy", np.zeros(1000, np.uint8))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.errno == errno.EFBIG
