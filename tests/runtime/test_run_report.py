"""What a run says of its data when it starts; tests of the report itself are beside it."""

import numpy as np
import pytest
from PIL import Image

from fastssd.data.convert import convert
from fastssd.data.sources.sources import open_source


@pytest.fixture
def lopsided(tmp_path):
    """Three classes, of which the validation split has one."""
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    for split, names in (("train", "abc"), ("val", "b"), ("test", "abc")):
        for name in names:
            folder = tmp_path / "source" / split / f"{name}\x1b[2J"
            folder.mkdir(parents=True)
            for index in range(12):
                Image.fromarray(pixels).save(folder / f"{split}{index}.png")
    convert(open_source(str(tmp_path / "source")), tmp_path / "data")
    return tmp_path / "data"


def test_a_validation_split_that_lacks_classes_is_said_at_the_start(
    here, arguments, lopsided, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("fastssd.evaluation.report.write_figures", lambda *arguments: ([], []))
    options = ("methods=[ce]", "budgets.scratch.epochs=1", "budgets.scratch.batch_size=8")
    code = here(arguments(tmp_path / "run", f"data.path={lopsided}", *options))

    assert code == 0
    printed = capsys.readouterr()
    before, _, _ = printed.out.partition("\nce: ")  # where it has not begun to train
    assert (
        "warning: val has images of 1 of 3 classes, and accuracy on it is of those alone; without "
        r"images: a\x1b[2J and c\x1b[2J"
    ) in before
    assert "test has images" not in printed.out
    assert "\x1b" not in printed.out + printed.err
