"""A run directory goes on with its own dataset, settings and stages, and with no others."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from fastssd.core.files import seal
from fastssd.runtime.record import STAGE_FILE, read_record, write_record

SMALL = ("methods=[lws]", "budgets.scratch.epochs=1", "budgets.classifier.epochs=1")


def converted(out: Path, **options) -> None:
    from fastssd.data.convert import convert
    from fastssd.data.sources.sources import open_source

    choice = {"imbalance": 8, "max_per_class": 40, "val_per_class": 3, **options}
    convert(open_source("digits"), out, overwrite=True, **choice)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, arguments, elsewhere) -> Path:
    """Return a folder with a dataset, a finished run, and a network by another learning rate."""
    root = tmp_path_factory.mktemp("same")
    converted(root / "data")
    for name, others in (("run", ()), ("foreign", ("methods=[ce]", "budgets.scratch.lr=0.01"))):
        command = [*arguments(root / name, *SMALL), f"data.path={root / 'data'}", *others]
        codes, printed = elsewhere(command)
        assert codes == [0], printed
    return root


@pytest.fixture
def command(finished, tmp_path, arguments):
    """Return what gives the command of a copy of the finished run, under overrides."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    config = tmp_path / "run/config.yaml"
    config.write_text(config.read_text().replace(str(finished), str(tmp_path)))

    def of(*overrides: str) -> list[str]:
        data = f"data.path={tmp_path / 'data'}"
        return [*arguments(tmp_path / "run", *SMALL), data, *overrides]

    return of


@pytest.fixture(autouse=True)
def no_figures(monkeypatch):
    monkeypatch.setattr("fastssd.evaluation.report.write_figures", lambda *arguments: ([], []))


def unfinish(run: Path) -> None:
    """Leave a run as if it was killed in the first stage: with a checkpoint, and no result."""
    shutil.rmtree(run / "lws")
    (run / "ce/result.json").unlink()


def files_of(run: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(run)): path.read_bytes()
        for path in run.rglob("*")
        if path.is_file() and path.name not in ("status.json", ".lock")
    }


def assert_refused(here, capsys, command, *words, code=2):
    assert here(command) == code
    error = capsys.readouterr().err
    assert error.startswith("fastssd: ")
    assert "Traceback" not in error
    # One line, or one for each set of differences between where they are and what to do.
    first, *told = error.splitlines()
    assert not told or (len(told) > 1 and first.endswith(":") and "another output" in told[-1])
    assert all(word in error for word in words), error


@pytest.mark.parametrize(
    ("in_the_middle", "options", "difference"),
    [
        (False, {"seed": 1}, "split 'train' has other images or labels"),
        (True, {"seed": 1}, "split 'train' has other images or labels"),
        (False, {"max_per_class": 30}, "split 'train' had 171 images, now 125"),
        (False, {"format": "ffcv"}, "the format was memory, now ffcv"),
    ],
)
def test_a_dataset_that_was_replaced_is_refused_naming_what_differs(
    tmp_path, here, capsys, command, in_the_middle, options, difference
):
    if in_the_middle:
        unfinish(tmp_path / "run")
    before = files_of(tmp_path / "run")
    converted(tmp_path / "data", **options)

    assert_refused(here, capsys, command(), "ce", difference, "another output")

    assert files_of(tmp_path / "run") == before


def test_every_process_refuses_alike(tmp_path, elsewhere, command):
    converted(tmp_path / "data", seed=1)

    codes, printed = elsewhere(command(), ranks=2)

    assert codes == [2, 2], printed
    for text in printed:
        assert "split 'train' has other images or labels" in text
        assert "another output" in text.splitlines()[-1]
        assert "Traceback" not in text
    status = json.loads((tmp_path / "run/status.json").read_text())
    assert (status["exit_code"], "other images" in status["error"]) == (2, True)


def test_a_dataset_converted_again_to_the_same_bytes_and_moved_is_the_same(
    tmp_path, here, capsys, command
):
    converted(tmp_path / "data")
    meta = json.loads((tmp_path / "data/meta.json").read_text())
    meta["versions"]["numpy"] = "another"
    del meta["sha256"]
    (tmp_path / "data/meta.json").write_text(json.dumps(meta))
    (tmp_path / "data").rename(tmp_path / "moved")

    assert here([*command(), f"data.path={tmp_path / 'moved'}"]) == 0

    assert capsys.readouterr().out.count("finished before") == 2


def test_without_its_config_a_run_is_still_compared_with_what_its_stages_say(
    tmp_path, here, capsys, command
):
    run = tmp_path / "run"
    (run / "config.yaml").unlink()
    before = files_of(run)

    assert_refused(
        here,
        capsys,
        command("seed=5", "model.backbone=resnet14", "budgets.scratch.weight_decay=0.3"),
        "seed is 0, not 5",
        "model.backbone is plaincnn, not resnet14",
        "budget.weight_decay is at its default, not 0.3",
    )

    assert files_of(run) == before
    assert here(command()) == 0
    assert (run / "config.yaml").exists()


def test_another_decoder_is_refused_by_the_stages_and_may_be_named_in_place_of_auto(
    tmp_path, here, capsys, command
):
    decoder = read_record(tmp_path / "run/ce").recipe["decoder"]
    assert here(command(f"data.decoder={decoder}")) == 0
    other = "torchvision" if decoder != "torchvision" else "native"
    assert_refused(
        here, capsys, command(f"data.decoder={other}"), f"decoder is {decoder}, not {other}"
    )


def test_a_stage_of_another_run_is_refused(tmp_path, here, capsys, command):
    for folder in ("ce", "lws"):
        shutil.rmtree(tmp_path / "run" / folder)
    shutil.copytree(tmp_path / "foreign/ce", tmp_path / "run/ce")

    assert_refused(here, capsys, command(), "ce: budget.lr is 0.01, not 0.02")


@pytest.mark.parametrize("kept", ["result.json", "checkpoint.safetensors", "best.safetensors"])
def test_a_stage_that_does_not_say_what_it_was_trained_by_is_refused(
    tmp_path, here, capsys, command, kept
):
    for path in (tmp_path / "run/ce").iterdir():
        if path.name not in (kept, "metrics.jsonl"):
            path.unlink()
    assert_refused(here, capsys, command(), "ce has no stage.json", "earlier version")


def test_a_stage_whose_source_was_trained_again_is_refused(tmp_path, here, capsys, command):
    folder = tmp_path / "run/lws"
    record = read_record(folder)
    write_record(folder, dataclasses.replace(record, weights={"ce": "0" * 64}))

    assert_refused(here, capsys, command(), "lws was trained on other weights of ce")


@pytest.mark.parametrize("file", ["result.json", "best.safetensors", "checkpoint.safetensors"])
def test_a_single_file_of_another_run_is_not_taken_for_this_ones(
    tmp_path, here, capsys, command, file
):
    foreign, run = tmp_path / "foreign", tmp_path / "run"
    unfinish(run)
    for path in (run / "ce").glob("checkpoint.*"):
        path.unlink()
    shutil.copy(foreign / "ce" / file, run / "ce" / file)

    assert here(command()) == 3

    error = capsys.readouterr().err
    assert "run" in error.splitlines()[-1]
    assert "delete" in error.splitlines()[-1]


def test_a_record_that_was_altered_or_is_of_a_later_version_is_refused(
    tmp_path, here, capsys, command
):
    path = tmp_path / "run/ce" / STAGE_FILE
    text = path.read_text()
    path.write_text(text.replace('"plaincnn"', '"resnet14"'))
    assert_refused(here, capsys, command(), STAGE_FILE, "altered", "delete", code=3)
    content = json.loads(text)
    del content["sha256"]
    path.write_text(json.dumps(content))
    assert_refused(here, capsys, command(), STAGE_FILE, "no checksum", "delete", code=3)
    path.write_text(seal(content | {"version": 3}))
    assert_refused(here, capsys, command(), STAGE_FILE, "version 3", "another output")


def test_a_record_is_readable_and_leaves_out_what_is_at_its_default(tmp_path, command):
    content = json.loads((tmp_path / "run/lws" / STAGE_FILE).read_text())
    assert content["recipe"]["budget"] == {"epochs": 1, "batch_size": 32, "lr": 0.2}
    assert list(content["recipe"]["sources"]) == ["source"]
    assert list(content["weights"]) == ["ce"]
    assert content["dataset"]["classes"] == [str(digit) for digit in range(10)]
    assert content["dataset"]["splits"]["train"]["images"] == 171
