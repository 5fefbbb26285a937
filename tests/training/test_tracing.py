import json

import numpy as np
import pytest
import torch

from fastssd.data.draws import Draws
from fastssd.training.tracing import Trace

CPU = torch.device("cpu")
DRAWS = Draws(np.arange(8), np.arange(8) * 5)
CHECKSUMS = torch.arange(8) * 7


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def traced(path, *, accumulate=1, num_processes=1, draws=DRAWS, checksums=CHECKSUMS):
    """Trace one step of a global batch, cut as `sharding` cuts it, as rank 0 sees it."""
    share = len(draws) // accumulate // num_processes
    starts = iter(range(0, len(draws), share * num_processes))
    parts = [
        [slice(s + r * share, s + (r + 1) * share) for r in range(num_processes)] for s in starts
    ]
    current = []

    def gather(values):
        if values.ndim == 1:
            return values.repeat(num_processes)
        return torch.cat([rows_of(part) for part in current])

    def rows_of(part):
        rows = np.stack([draws.samples[part], draws.views[part]], axis=1)
        tensor = torch.from_numpy(rows)
        if checksums is None:
            return tensor
        return torch.cat([tensor, checksums[part][:, None]], dim=1)

    trace = Trace(path, gather=gather, device=CPU, enabled=True)
    for of_ranks in parts:
        current[:] = of_ranks
        mine = of_ranks[0]
        losses = {"a": torch.tensor(1.5), "b": torch.tensor(0.5, dtype=torch.float16)}
        trace.add(draws[mine], None if checksums is None else checksums[mine], losses)
    trace.step(3, 40)
    return lines(path)[-1]


def test_a_step_has_one_line_with_its_place_and_the_sum_of_its_losses(tmp_path):
    line = traced(tmp_path / "trace.jsonl")

    assert {name: line[name] for name in ("epoch", "step", "loss")} == {
        "epoch": 3,
        "step": 40,
        "loss": 2.0,
    }


@pytest.mark.parametrize("num_processes", [1, 2, 4])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_digest_does_not_depend_on_how_the_batch_was_cut(tmp_path, accumulate, num_processes):
    whole = traced(tmp_path / "a.jsonl")
    cut = traced(tmp_path / "b.jsonl", accumulate=accumulate, num_processes=num_processes)

    assert cut == whole


def test_the_digest_depends_on_samples_views_pixels_and_order(tmp_path):
    path = tmp_path / "trace.jsonl"
    turned = DRAWS[np.roll(np.arange(8), 1)]
    digests = {
        traced(path, draws=draws, checksums=checksums)["digest"]
        for draws, checksums in [
            (DRAWS, CHECKSUMS),
            (DRAWS, CHECKSUMS + 1),
            (DRAWS, None),
            (Draws(DRAWS.samples, DRAWS.views + 1), CHECKSUMS),
            (turned, CHECKSUMS),
        ]
    }

    assert len(digests) == 5
    assert len(lines(path)) == 5


def test_only_the_process_that_is_asked_to_writes(tmp_path):
    trace = Trace(tmp_path / "t.jsonl", gather=lambda v: v, device=CPU, enabled=False)

    trace.add(DRAWS, CHECKSUMS, {"a": torch.tensor(1.0)})
    trace.step(0, 0)

    assert not (tmp_path / "t.jsonl").exists()
