import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fastssd.data.draws import Draws
from fastssd.data.workers import Workers
from fastssd.runtime.build import build
from fastssd.training.batches import finished
from fastssd.training.counting import in_order


def workers(rank: int, num_processes: int) -> Workers:
    return Workers(
        rank=rank,
        num_processes=num_processes,
        threads=1,
        prefetch=1,
        device=torch.device("cpu"),
    )


@given(
    num_draws=st.integers(0, 200), batch_size=st.integers(1, 64), num_processes=st.integers(1, 7)
)
def test_every_draw_is_in_one_batch_of_one_process(num_draws, batch_size, num_processes):
    draws = Draws(np.arange(num_draws), np.arange(num_draws) % 3)
    found = []
    for rank in range(num_processes):
        for batch in in_order(draws, batch_size, workers(rank, num_processes)):
            assert 0 < len(batch) <= max(1, batch_size // num_processes)
            found += batch.samples.tolist()
    assert found == list(range(num_draws))


@pytest.mark.parametrize("batch_size", [7, 512])
def test_counts_are_those_of_each_image_on_its_own(context, stage_of, batch_size):
    made = context("model.backbone=resnet8", f"evaluation.batch_size={batch_size}")
    stage = build(stage_of(made, "ssd.I"), made)
    split = made.dataset.split("val")

    counter = made.count(stage, "val")["classifier"]

    assert not stage.training
    augmentation = made.test_augmentation()
    fetch = made.fetch(split, augmentation, None)
    correct, total = [0] * 10, [0] * 10
    for sample in range(len(split)):
        draws = Draws(np.array([sample]), np.array([0]))
        batch = finished(draws, fetch(draws), augmentation)
        predicted = int(stage.predict(batch.images)["classifier"].argmax())
        total[split.labels[sample]] += 1
        correct[split.labels[sample]] += predicted == split.labels[sample]
    assert counter.correct.tolist() == correct
    assert counter.total.tolist() == total


def test_processes_count_disjoint_images_that_make_the_split(context, stage_of):
    stage = build(stage_of(context(), "ssd.I"), context())
    whole = context().count(stage, "test")["classifier"]
    parts = [
        context(rank=rank, num_processes=7).count(stage, "test")["classifier"] for rank in range(7)
    ]
    assert sum(part.total for part in parts).tolist() == whole.total.tolist()
    assert sum(part.correct for part in parts).tolist() == whole.correct.tolist()
    assert int(whole.total.sum()) == 360
