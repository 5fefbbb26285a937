"""A run with compiled networks is the run without, to rounding, and they may take turns."""

import shutil
import signal

import pytest
from safetensors.torch import load_file

RECIPE = (
    "deterministic=false",
    "methods=[ce]",
    # With a second network that follows the first:
    "ce.model.task={kind: instance, queue: 64, embedding: 16}",
    "data.validation=null",
    "budgets.scratch.epochs=1",
)
TOLERANCE = 1e-3
"""Of losses and weights: sums in another order, over 16 steps of a network without BatchNorm."""


@pytest.mark.slow
@pytest.mark.skipif(
    not (shutil.which("g++") or shutil.which("clang++")), reason="needs a C++ compiler"
)
def test_two_processes_go_on_compiled_where_they_were_stopped_and_end_as_they_would_have(
    tmp_path, arguments, elsewhere, lines
):
    plain = arguments(tmp_path / "plain", *RECIPE)
    mixed = arguments(tmp_path / "mixed", *RECIPE)
    codes, printed = elsewhere(plain, ranks=2)
    assert codes == [0, 0], printed
    steps = [line["loss"] for line in lines(tmp_path / "plain/ce/trace.jsonl")]

    at = ("step", "ce", len(steps) // 2)
    codes, printed = elsewhere(mixed, ranks=2, at=at, signal_number=signal.SIGTERM)
    assert codes == [128 + signal.SIGTERM] * 2, printed
    codes, printed = elsewhere([*mixed, "compile=true"], ranks=2)
    assert codes == [0, 0], printed

    found = [line["loss"] for line in lines(tmp_path / "mixed/ce/trace.jsonl")]
    assert found == pytest.approx(steps, rel=TOLERANCE)
    weights, expected = (
        load_file(tmp_path / run / "ce/weights.safetensors") for run in ("mixed", "plain")
    )
    assert weights.keys() == expected.keys()
    for name, value in expected.items():
        assert (weights[name].double() - value.double()).abs().max() <= TOLERANCE, name
