import pytest
import torch

from fastssd.data.workers import Workers, together
from fastssd.runtime.build import prepare


def batches(prepared, epoch, first_step=0):
    steps = prepared.batches.steps_per_epoch
    return list(prepared.batches.batches(epoch * steps + first_step, (epoch + 1) * steps))


@pytest.fixture
def prepared_of(context, stage_of):
    """Return what prepares the rotation stage, under overrides and as one process of several."""

    def make(*overrides, **share):
        made = context(*overrides, **share)
        return prepare(stage_of(made, "ssd.I"), made)

    return make


def test_an_epoch_from_a_step_on_is_the_rest_of_the_epoch(prepared_of):
    prepared = prepared_of("budgets.scratch.accumulate=2")
    whole, rest = batches(prepared, 1), batches(prepared, 1, first_step=2)
    assert len(whole) == 2 * prepared.batches.steps_per_epoch
    assert len(rest) == len(whole) - 4
    for one, other in zip(whole[4:], rest, strict=True):
        assert one.draws.samples.tolist() == other.draws.samples.tolist()
        assert torch.equal(one.views.rotated, other.views.rotated)
        assert torch.equal(one.checksums, other.checksums)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_processes_and_micro_batches_share_one_global_batch(prepared_of, accumulate):
    whole = batches(prepared_of(), 0)
    shares = [
        batches(
            prepared_of(f"budgets.scratch.accumulate={accumulate}", rank=rank, num_processes=4), 0
        )
        for rank in range(4)
    ]
    for step, batch in enumerate(whole):
        parts = [
            shares[rank][step * accumulate + micro]
            for micro in range(accumulate)
            for rank in range(4)
        ]
        assert torch.equal(torch.cat([part.labels for part in parts]), batch.labels)
        assert torch.equal(torch.cat([part.images for part in parts]), batch.images)
        assert torch.equal(torch.cat([part.checksums for part in parts]), batch.checksums)


def test_labels_are_those_of_the_samples_and_pixels_differ_by_epoch(prepared_of, context):
    labels = torch.from_numpy(context().train.labels)
    first, second = batches(prepared_of(), 0), batches(prepared_of(), 1)
    for batch in first:
        assert torch.equal(batch.labels, labels[batch.draws.samples])
        assert batch.images.dtype == torch.float32
        assert batch.images.is_contiguous(memory_format=torch.channels_last)
    sums = [torch.cat([batch.checksums for batch in epoch]) for epoch in (first, second)]
    assert len(set(sums[0].tolist()) - set(sums[1].tolist())) > len(sums[0]) // 2


def test_checksums_are_made_only_for_a_trace(prepared_of):
    assert batches(prepared_of("log.trace=false"), 0)[0].checksums is None


class Threaded:
    """A fetch whose decoder has threads of its own."""

    def __init__(self, threads):
        self.threads = threads

    def __call__(self, draws):
        return {}


@pytest.mark.parametrize(
    ("threads", "decoder_threads", "at_once"), [(8, 1, 8), (8, 8, 2), (1, 4, 1), (1, 1, 1)]
)
def test_few_batches_are_made_at_once_where_a_decoder_has_threads_of_its_own(
    threads, decoder_threads, at_once
):
    workers = Workers(
        rank=0, num_processes=1, threads=threads, prefetch=1, device=torch.device("cpu")
    )
    fetch = Threaded(decoder_threads)

    assert workers.num_at_once(fetch) == at_once
    assert workers.num_at_once(together(Threaded(1), fetch)) == at_once
