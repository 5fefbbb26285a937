"""Plans cut for several processes: the same global batches, and exactly balanced classes."""

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastssd.data.class_index import ClassIndex
from fastssd.data.plans import SAMPLERS, Plan
from fastssd.data.sharding import micro_batches, steps_per_epoch

EVERY = [name if name != "deferred" else "deferred:start=1" for name in SAMPLERS]


def index_of(counts):
    labels = np.repeat(np.arange(len(counts)), counts)
    return ClassIndex(np.random.default_rng(2).permutation(labels), len(counts))


def plan_of(index, sampler, *, seed=0):
    return Plan(index=index, sampler=sampler, seed=seed, stream="features", num_epochs=9)


def shares(plan, epoch, *, batch_size, num_processes, accumulate=1, rank):
    steps = range(steps_per_epoch(len(plan.index), batch_size))
    return list(
        micro_batches(
            plan.epoch(epoch),
            steps,
            batch_size=batch_size,
            accumulate=accumulate,
            rank=rank,
            num_processes=num_processes,
        )
    )


def gathered(plan, epoch, *, batch_size, num_processes, accumulate=1):
    """Return (samples, views) of the global batches, put together from what the ranks draw."""
    cut = {"batch_size": batch_size, "num_processes": num_processes, "accumulate": accumulate}
    ranks = [shares(plan, epoch, **cut, rank=rank) for rank in range(num_processes)]
    parts = [ranks[rank][i] for i in range(len(ranks[0])) for rank in range(num_processes)]
    return [
        np.concatenate([getattr(part, name) for part in parts]) for name in ("samples", "views")
    ]


@pytest.mark.parametrize("sampler", [*EVERY, "class_aware:per_class=2", "instance+reversed"])
def test_one_two_and_four_processes_have_equal_digests_of_every_global_batch(sampler):
    plan = plan_of(index_of([90, 31, 8, 0, 5, 1]), sampler)
    for epoch in range(3):
        digests = set()
        for num_processes, accumulate in ((1, 1), (2, 1), (4, 1), (1, 2), (2, 2)):
            arrays = gathered(
                plan, epoch, batch_size=16, num_processes=num_processes, accumulate=accumulate
            )
            steps = np.stack(arrays).reshape(2, steps_per_epoch(len(plan.index), 16), -1)
            digests.add(
                tuple(
                    hashlib.sha256(steps[:, i].tobytes()).hexdigest() for i in range(steps.shape[1])
                )
            )
        assert len(digests) == 1


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.integers(1, 30), min_size=1, max_size=8),
    per_class=st.integers(1, 5),
    num_processes=st.sampled_from([1, 2, 3, 4, 8]),
    share=st.integers(1, 6),
    seed=st.integers(0, 3),
)
def test_classes_are_exactly_balanced_over_all_ranks_and_every_class_is_among_them(
    counts, per_class, num_processes, share, seed
):
    index, batch_size = index_of(counts), num_processes * share
    plan = plan_of(index, f"class_aware:per_class={per_class}", seed=seed)
    if len(index) < batch_size:
        return

    samples, _ = gathered(plan, 0, batch_size=batch_size, num_processes=num_processes)

    by_class = np.bincount(index.labels[samples], minlength=len(counts))
    rounds, rest = divmod(len(samples), per_class * len(counts))
    assert ((by_class >= rounds * per_class) & (by_class <= (rounds + 1) * per_class)).all()
    assert rest or np.ptp(by_class) == 0
    if rounds:
        assert set(index.labels[samples]) == set(range(len(counts)))


@settings(max_examples=30, deadline=None)
@given(num_processes=st.sampled_from([2, 4, 8]), seed=st.integers(0, 3))
def test_images_of_a_class_smaller_than_the_number_of_ranks_get_equal_shares(num_processes, seed):
    counts = [200, 40, 5, 1]
    index = index_of(counts)
    plan = plan_of(index, "class_aware", seed=seed)

    samples = np.concatenate(
        [gathered(plan, epoch, batch_size=8, num_processes=num_processes)[0] for epoch in range(1)]
    )

    by_image = np.bincount(samples, minlength=len(index))
    for label, count in enumerate(counts):
        of_class = by_image[index.labels == label]
        assert len(of_class) == count
        assert np.ptp(of_class) <= 1
