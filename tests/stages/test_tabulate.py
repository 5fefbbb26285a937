import json

import numpy as np
import pytest
import torch

from fastssd.data.draws import Draws, pack_view
from fastssd.errors import DataError
from fastssd.stages import tabulate
from fastssd.stages.feeds import finished
from fastssd.stages.networks import FrozenNetwork
from fastssd.stages.table import DistinctDraws, EveryView

NUM_VIEWS = 2


@pytest.fixture
def frozen(context):
    made = context("model.backbone=resnet8")
    backbone = made.backbone("a test")
    return FrozenNetwork(backbone, made.head(backbone.width, "a test"), batchnorm="frozen")


def directly(frozen, context, draws, stream):
    """Return (B, C) logits, each draw alone in its batch."""
    augmentation = context.augmentation(stream)
    fetch = context.images(context.train, augmentation)
    rows = [draws[np.array([i])] for i in range(len(draws))]
    frozen.eval()
    return np.concatenate(
        [frozen(finished(row, fetch(row), augmentation).query).numpy() for row in rows]
    )


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float16", 2e-2)])
def test_a_table_of_every_view_holds_what_the_network_says_of_each(
    context, frozen, tmp_path, dtype, tolerance
):
    made = context(f"frozen.dtype={dtype}")
    rows = EveryView(len(made.train), NUM_VIEWS)

    table = tabulate.tabulated(tmp_path / "table", frozen, rows, stream="distill", context=made)

    some = rows.draws[np.arange(0, len(rows.draws), 23)]
    expected = directly(frozen, made, some, "distill")
    np.testing.assert_allclose(table.read(some), expected, atol=tolerance, rtol=0)
    other_stream = directly(frozen, made, some, "features")
    assert np.abs(expected - other_stream).max() > 0.05  # it would have told them apart
    assert np.load(tmp_path / "table/logits.npy", mmap_mode="r").dtype == dtype


def test_a_table_of_distinct_draws_holds_what_the_network_says_of_each(context, frozen, tmp_path):
    made = context("frozen.dtype=float32")
    draws = Draws(np.array([7, 3, 7, 7, 0]), pack_view([0, 1, 1, 0, 4], [0, 0, 2, 0, 1]))
    rows = DistinctDraws(draws)

    table = tabulate.tabulated(tmp_path / "table", frozen, rows, stream="balance", context=made)

    assert np.load(tmp_path / "table/logits.npy", mmap_mode="r").shape == (4, 10)
    expected = directly(frozen, made, draws, "balance")
    np.testing.assert_allclose(table.read(draws), expected, atol=1e-5, rtol=0)


def test_processes_fill_disjoint_parts_that_make_the_whole_table(context, frozen, tmp_path):
    rows = EveryView(len(context().train), NUM_VIEWS)
    whole = tabulate.tabulated(
        tmp_path / "whole", frozen, rows, stream="distill", context=context()
    )
    # Rank 0 makes the file, then each fills its share; here one after the other.
    main = context(num_processes=3)
    part = tabulate.tabulated(tmp_path / "parts", frozen, rows, stream="distill", context=main)
    assert (part.read(rows.draws[-9:]) == 0).all()  # not its share
    (tmp_path / "parts/manifest.json").unlink()
    for rank in (1, 2):
        other = context(rank=rank, num_processes=3)
        with pytest.raises(DataError, match="manifest"):  # which rank 0 would write only now
            tabulate.tabulated(tmp_path / "parts", frozen, rows, stream="distill", context=other)
    np.testing.assert_array_equal(
        np.load(tmp_path / "parts/logits.npy"), np.load(tmp_path / "whole/logits.npy")
    )
    assert len(whole.read(rows.draws)) == len(rows.draws)


def test_a_finished_table_is_not_made_again_and_a_torn_one_is(context, frozen, tmp_path):
    rows = EveryView(len(context().train), NUM_VIEWS)

    def table(made=None):
        return tabulate.tabulated(
            tmp_path / "table", frozen, rows, stream="distill", context=made or context()
        )

    expected = table().read(rows.draws)
    logits = np.load(tmp_path / "table/logits.npy", mmap_mode="r+")
    logits[:] = 1
    logits.flush()
    assert (table().read(rows.draws) == 1).all()

    (tmp_path / "table/manifest.json").unlink()  # as a kill leaves it
    (tmp_path / "table/logits.npy").write_bytes(b"half")
    np.testing.assert_array_equal(table().read(rows.draws), expected)


@pytest.mark.parametrize(
    ("override", "difference"),
    [
        ("seed=1", "seed is 0, not 1"),
        ("frozen.dtype=float32", "dtype is 'float16', not 'float32'"),
        ("augment.mean=[0.5,0.5,0.5]", "augmentation is"),
        ("precision=bf16", "network is"),
    ],
)
def test_a_table_of_other_settings_is_refused_naming_them(
    context, frozen, tmp_path, override, difference
):
    rows = EveryView(len(context().train), NUM_VIEWS)
    arguments = {"stream": "distill"}
    tabulate.tabulated(tmp_path / "table", frozen, rows, context=context(), **arguments)
    with pytest.raises(DataError) as refusal:
        tabulate.tabulated(tmp_path / "table", frozen, rows, context=context(override), **arguments)
    assert difference in str(refusal.value)
    assert str(tmp_path / "table") in str(refusal.value)


def test_a_table_of_another_network_or_of_other_draws_is_refused(context, frozen, tmp_path):
    rows = EveryView(len(context().train), NUM_VIEWS)

    def table(rows=rows, stream="distill"):
        return tabulate.tabulated(
            tmp_path / "table", frozen, rows, stream=stream, context=context()
        )

    table()
    with pytest.raises(DataError, match="stream is 'distill', not 'balance'"):
        table(stream="balance")
    with pytest.raises(DataError, match="rows is"):
        table(EveryView(len(context().train), NUM_VIEWS + 1))
    with torch.no_grad():
        frozen.head.bias[0] += 1e-3
    with pytest.raises(DataError, match="network is"):
        table()
    manifest = json.loads((tmp_path / "table/manifest.json").read_text())
    assert manifest["decoder"] == "torchvision"
    assert manifest["filter"]
    assert manifest["dataset"]["name"] == "digits"


def test_a_fingerprint_depends_on_every_name_and_value():
    layer = torch.nn.BatchNorm2d(3)
    before = tabulate.fingerprint(layer)
    assert tabulate.fingerprint(torch.nn.BatchNorm2d(3)) == before
    layer.running_var[1] += 1e-6
    assert tabulate.fingerprint(layer) != before
    assert tabulate.fingerprint(torch.nn.Sequential(torch.nn.BatchNorm2d(3))) != before


def test_nobody_waits_for_a_table_that_a_signal_ends(context, frozen, tmp_path):
    class Asked(BaseException):
        pass

    def ask():
        raise Asked

    made = context("evaluation.batch_size=16")
    object.__setattr__(made, "stop_if_asked", ask)
    rows = EveryView(len(made.train), NUM_VIEWS)
    with pytest.raises(Asked):
        tabulate.tabulated(tmp_path / "table", frozen, rows, stream="distill", context=made)
    assert not (tmp_path / "table/manifest.json").exists()
