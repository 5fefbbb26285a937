import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastssd.config import MAX_EPOCHS
from fastssd.data.draws import Draws, pack_view, unpack_view


@given(epoch=st.integers(0, MAX_EPOCHS), repetition=st.integers(0, 2**31 - 1))
def test_a_view_number_tells_its_epoch_and_repetition(epoch, repetition):
    view = pack_view(epoch, repetition)

    assert view >= 0
    assert [int(part) for part in unpack_view(view)] == [epoch, repetition]


def test_a_sample_drawn_once_an_epoch_has_the_epoch_as_its_view():
    assert pack_view(7, np.zeros(3, np.int64)).tolist() == [7, 7, 7]


def test_slices_and_row_lists_take_samples_and_views_together():
    draws = Draws(np.arange(5), np.arange(5) * 10)

    assert draws[1:3].samples.tolist() == [1, 2]
    assert draws[1:3].views.tolist() == [10, 20]
    assert draws[np.array([4, 0])].views.tolist() == [40, 0]
    assert len(draws[5:]) == 0


def test_samples_and_views_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match=r"\(3,\) samples but \(2,\) views"):
        Draws(np.arange(3), np.arange(2))
