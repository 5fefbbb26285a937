import errno
import resource

import numpy as np
import pytest

from fastssd.data.storage.files import load_array, save_array


def test_a_saved_array_loads_again(tmp_path):
    array = np.arange(12, dtype=np.int32).reshape(3, 4)
    save_array(tmp_path / "a.npy", array)
    assert np.array_equal(load_array(tmp_path / "a.npy", dtype=np.int32, ndim=2), array)


def test_an_array_that_the_disk_has_no_room_for_says_why_and_where(tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, limits[1]))
    try:
        with pytest.raises(OSError, match=r"File too large: .*a\.npy") as caught:
            save_array(tmp_path / "a.npy", np.zeros(1000, np.uint8))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.errno == errno.EFBIG
