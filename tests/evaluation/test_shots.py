import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastssd.evaluation.shots import EXCLUSIVE_GROUPS, GROUPS, shot_groups


def test_the_limits_are_those_of_the_papers_text_and_of_its_code():
    counts = [1280, 101, 100, 99, 21, 20, 19, 5, 0]

    groups = {name: np.flatnonzero(mask).tolist() for name, mask in shot_groups(counts).items()}

    assert groups == {
        "many": [0, 1, 2],
        "medium": [3, 4],
        "few": [5, 6, 7, 8],
        "many_exclusive": [0, 1],
        "medium_exclusive": [2, 3, 4, 5],
        "few_exclusive": [6, 7, 8],
    }


@given(st.lists(st.integers(0, 300), min_size=1, max_size=50))
def test_every_class_is_in_one_group_of_each_convention(counts):
    groups = shot_groups(counts)

    for convention in (GROUPS, EXCLUSIVE_GROUPS):
        assert (sum(groups[name].astype(int) for name in convention) == 1).all()


@pytest.mark.parametrize("counts", [[3, -1], [[1, 2]], [0.5, 2.0]])
def test_what_is_not_a_list_of_counts_is_refused(counts):
    with pytest.raises(ValueError, match="non-negative integer"):
        shot_groups(counts)
