"""Whole runs in one process at a time: killed and resumed, stopped, refused, taught online."""

import json
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

FOLDERS = ("1-features", "2-balance", "3-distill", "4-balance", "baseline-ce", "baseline-lws")
# Everything that a checkpoint has to hold: BatchNorm, momentum encoder and queue.
STATEFUL = ("model.backbone=resnet8", "features.task=instance", "features.shuffle_keys=true")


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory, arguments, elsewhere) -> Path:
    output = tmp_path_factory.mktemp("undisturbed") / "run"
    codes, printed = elsewhere(arguments(output, *STATEFUL))
    assert codes == [0], printed
    return output


def assert_same_run(run: Path, reference: Path, lines) -> None:
    for folder in FOLDERS:
        for file in ("weights.safetensors", "best.safetensors"):
            assert (run / folder / file).read_bytes() == (reference / folder / file).read_bytes()
        for file in ("metrics.jsonl", "trace.jsonl"):
            assert lines(run / folder / file) == lines(reference / folder / file), (folder, file)
    rows = [json.loads((each / "report.json").read_text())["rows"] for each in (run, reference)]
    assert rows[0] == rows[1]


def test_a_run_killed_in_every_stage_ends_as_if_it_had_not_been(
    tmp_path, arguments, elsewhere, undisturbed, lines
):
    command = arguments(tmp_path / "run", *STATEFUL)
    steps = len(lines(undisturbed / "1-features/trace.jsonl"))
    kills = [
        ("step", "1-features", 1),  # before there is a checkpoint
        ("step", "1-features", steps - 2),  # in the last epoch, lines after the checkpoint
        ("table", "2-balance", 0),
        ("step", "2-balance", steps // 2 + 1),
        ("step", "3-distill", steps // 2 + 2),
        ("table", "4-balance", 0),
        ("step", "4-balance", steps // 2 + 1),
        ("step", "baseline-ce", steps // 2 + 1),
        ("step", "baseline-lws", steps // 2 + 1),
    ]

    for kill in kills:
        codes, printed = elsewhere(command, at=kill)
        assert codes == [-signal.SIGKILL], (kill, printed)
        assert json.loads((tmp_path / "run/status.json").read_text())["state"] == "running"
    codes, printed = elsewhere(command)

    assert codes == [0], printed
    assert_same_run(tmp_path / "run", undisturbed, lines)


def test_a_run_stopped_by_sigterm_says_143_keeps_its_step_and_goes_on_with_the_same_bits(
    tmp_path, arguments, elsewhere, undisturbed, lines
):
    output = tmp_path / "run"
    shutil.copytree(undisturbed, output)
    for folder in FOLDERS[2:]:
        shutil.rmtree(output / folder)
    config = (output / "config.yaml").read_text().replace(str(undisturbed), str(output))
    (output / "config.yaml").write_text(config)
    steps_per_epoch = len(lines(undisturbed / "3-distill/trace.jsonl")) // 2
    step = steps_per_epoch + 2
    command = arguments(output, *STATEFUL)

    codes, printed = elsewhere(
        command, at=("step", "3-distill", step), signal_number=signal.SIGTERM
    )

    assert codes == [128 + signal.SIGTERM]
    assert "Traceback" not in printed[0]
    assert "1-features: finished before" in printed[0]
    status = json.loads((output / "status.json").read_text())
    assert (status["state"], status["stage"], status["exit_code"]) == ("stopped", "3-distill", 143)
    with safe_open(output / "3-distill/checkpoint.safetensors", framework="pt") as file:
        progress = json.loads(file.metadata()["progress"])
    assert (progress["epoch"], progress["step"]) == (1, step + 1)
    assert len(lines(output / "3-distill/trace.jsonl")) == step + 1
    codes, printed = elsewhere(command)
    assert codes == [0], printed
    assert_same_run(output, undisturbed, lines)


def test_sigterm_while_a_table_is_made_stops_the_run_at_once(tmp_path, arguments, elsewhere):
    command = arguments(tmp_path / "run", "stages=[I,II]", "baselines=[]", "features.epochs=1")
    elsewhere([*command, "evaluation.batch_size=32"], at=("step", "2-balance", 0))
    shutil.rmtree(tmp_path / "run/2-balance")

    codes, _ = elsewhere(
        [*command, "evaluation.batch_size=32"],
        at=("table", "2-balance", 1),
        signal_number=signal.SIGTERM,
    )

    assert codes == [143]
    assert not (tmp_path / "run/2-balance/table/manifest.json").exists()
    assert not (tmp_path / "run/2-balance/checkpoint.safetensors").exists()


def test_a_finished_run_trains_nothing_again_and_writes_the_same_report(
    arguments, elsewhere, undisturbed
):
    report = json.loads((undisturbed / "report.json").read_text())
    modified = {
        folder: (undisturbed / folder / "weights.safetensors").stat().st_mtime_ns
        for folder in FOLDERS
    }

    codes, printed = elsewhere(arguments(undisturbed, *STATEFUL))

    assert codes == [0]
    assert all(f"{folder}: finished before" in printed[0] for folder in FOLDERS)
    assert json.loads((undisturbed / "report.json").read_text()) == report
    for folder, time in modified.items():
        assert (undisturbed / folder / "weights.safetensors").stat().st_mtime_ns == time


def test_the_report_and_the_metrics_say_what_the_contract_asks_for(undisturbed, lines):
    report = json.loads((undisturbed / "report.json").read_text())
    names = {row["name"] for row in report["rows"] if row["checkpoint"] == "last"}
    assert names == {"CE", "LWS", "SSD I", "SSD II", "SSD III-hard", "SSD III-soft", "SSD IV"}
    assert json.loads((undisturbed / "status.json").read_text())["state"] == "done"
    assert set(json.loads((undisturbed / "environment.json").read_text())) >= {"packages", "device"}
    assert "table" in json.loads((undisturbed / "2-balance/result.json").read_text())["seconds"]
    train = [
        line for line in lines(undisturbed / "1-features/metrics.jsonl") if line["kind"] == "train"
    ]
    assert set(train[0]["losses"]) == {"classification", "instance"}
    assert set(train[0]["accuracy"]) == {"classification", "instance"}
    groups = {group for line in train for group in line["accuracy"]["instance"]}
    assert groups == {"overall", "medium", "few"}  # no class has 100 images here


@pytest.fixture(scope="module")
def taught(tmp_path_factory, arguments, elsewhere):
    """Return stage III's folder by kind of teacher, on the same stage I.

    Online it is on the same stage II too; one of float16 learns its scales from its own table.
    """
    root = tmp_path_factory.mktemp("taught")
    common = ("baselines=[]", "stages=[I,II,III]", "distill.epochs=10", "distill.batch_size=16")

    def train(name: str, *overrides: str) -> Path:
        codes, printed = elsewhere(arguments(root / name, *common, *overrides))
        assert codes == [0], printed
        return root / name / "3-distill"

    folders = {"float32": train("float32", "frozen.dtype=float32")}
    for name, copied, overrides in (
        ("online", FOLDERS[:2], ("distill.teacher=online", "frozen.dtype=float32")),
        ("float16", FOLDERS[:1], ("frozen.dtype=float16",)),
    ):
        for folder in copied:
            shutil.copytree(root / "float32" / folder, root / name / folder)
        folders[name] = train(name, *overrides)
    return folders


def test_a_float32_table_of_as_many_views_as_epochs_is_the_online_teacher(taught, lines):
    table, online = (lines(taught[name] / "trace.jsonl") for name in ("float32", "online"))
    assert len(table) >= 100
    assert [line["digest"] for line in table] == [line["digest"] for line in online]
    losses = np.array([[line["loss"] for line in run[:100]] for run in (table, online)])
    np.testing.assert_allclose(losses[0], losses[1], atol=1e-3)


def test_a_float16_table_changes_the_losses_by_its_rounding(taught, lines):
    table, online = (lines(taught[name] / "trace.jsonl") for name in ("float16", "online"))
    assert [line["digest"] for line in table] == [line["digest"] for line in online]
    difference = np.abs([a["loss"] - b["loss"] for a, b in zip(table, online, strict=True)])
    # Logits below 16 are rounded by at most 2**-8; the soft loss weighs them by T = 2. Of one step
    # the rounding may vanish in a sum of float32.
    assert difference[0] < 2e-2
    assert 0 < difference.max() < 5e-2


def test_a_run_directory_with_other_settings_is_refused_and_left_as_it_was(
    arguments, here, undisturbed, capsys
):
    before = (undisturbed / "status.json").read_text()

    code = here(arguments(undisturbed, *STATEFUL, "distill.temperature=3"))

    error = capsys.readouterr().err
    assert code == 2
    assert "distill.temperature is 2.0, not 3.0" in error
    assert len(error.splitlines()) == 1
    assert (undisturbed / "status.json").read_text() == before


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("model.backbone=resnet9", ("model.backbone", "resnet8")),
        ("augment.query=digit", ("augment.query", "digits")),
        ("augment.test=hole", ("augment.test", "whole")),
        ("features.plan=instanse", ("features.plan", "instance")),
        ("balance.plan=class_awar", ("balance.plan", "class_aware")),
        ("data.test=tset", ("data.test", "test")),
        ("data.validation=valid", ("data.validation", "val")),
        ("distill.batch_size=4096", ("distill.batch_size", "4096")),
        ("balance.accumulate=3", ("balance.batch_size", "3 micro-batches")),
        ("augment.size=16", ("augment.query", "8 x 8")),
        ("precision=fp16", ("precision", "bf16")),
    ],
)
def test_a_wrong_setting_ends_with_2_and_one_line_before_anything_is_trained(
    tmp_path, arguments, here, capsys, override, words
):
    code = here(arguments(tmp_path / "run", override))

    error = capsys.readouterr().err
    assert code == 2
    assert len(error.splitlines()) == 1
    assert all(word in error for word in words), error
    assert not list((tmp_path / "run").glob("*/"))
    status = json.loads((tmp_path / "run/status.json").read_text())
    assert (status["state"], status["stage"], status["exit_code"]) == ("failed", None, 2)
    assert status["error"] in error


def test_missing_data_ends_with_3_and_a_run_that_never_began_may_be_mended(
    tmp_path, arguments, here, elsewhere, capsys
):
    command = arguments(tmp_path / "run", "stages=[I]", "baselines=[]", "features.epochs=1")

    code = here([*command, f"data.path={tmp_path / 'nowhere'}"])

    error = capsys.readouterr().err
    assert code == 3
    assert "nowhere" in error
    assert len(error.splitlines()) == 1
    codes, printed = elsewhere(command)
    assert codes == [0], printed
    assert json.loads((tmp_path / "run/status.json").read_text())["exit_code"] == 0


def test_an_output_that_is_a_file_ends_with_2(tmp_path, arguments, here, capsys):
    (tmp_path / "run").write_text("mine")
    assert here(arguments(tmp_path / "run")) == 2
    assert "output=" in capsys.readouterr().err
    assert (tmp_path / "run").read_text() == "mine"


def test_a_damaged_image_in_a_dataset_ends_with_3_and_names_its_file(
    tmp_path, arguments, here, capsys, photos
):
    meta = json.loads((photos / "meta.json").read_text())
    del meta["files"], meta["sha256"]  # as of a file too large to be compared at opening
    (photos / "meta.json").write_text(json.dumps(meta))
    file = photos / "train.beton"
    content = bytearray(file.read_bytes())
    start = content.rindex(b"\xff\xd8\xff")
    content[start + 20 : start + 400] = bytes(380)
    file.write_bytes(content)

    code = here(
        arguments(
            tmp_path / "run",
            f"data.path={photos}",
            "data.validation=null",
            "augment.query=imagenet_plain",
            "augment.size=8",
            "features.batch_size=8",
            "balance.batch_size=8",
            "distill.batch_size=8",
        )
    )

    error = capsys.readouterr().err
    assert code == 3, error
    assert ".jpg" in error
    assert "Traceback" not in error
    assert len(error.splitlines()) == 1
    status = json.loads((tmp_path / "run/status.json").read_text())
    assert (status["state"], status["stage"], status["exit_code"]) == ("failed", "1-features", 3)


@pytest.fixture
def photos(tmp_path) -> Path:
    """A dataset directory of 24 generated JPEGs in `ffcv` format."""
    from PIL import Image

    from fastssd.data.convert import convert
    from fastssd.data.sources.sources import open_source

    rng = np.random.default_rng(0)
    for split, count in (("train", 9), ("test", 3)):
        for name in ("ash", "oak"):
            folder = tmp_path / "photos" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 256, (24, 20, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.jpg", quality=90)
    out = tmp_path / "photo-data"
    convert(open_source(str(tmp_path / "photos")), out, format="ffcv")
    return out


def test_a_loss_that_explodes_ends_with_1_and_one_line(tmp_path, arguments, here, capsys):
    code = here(arguments(tmp_path / "run", "features.lr=1e6"))

    error = capsys.readouterr().err
    assert code == 1
    assert "1-features: " in error
    assert "the training has diverged: lower the learning rate" in error
    assert len(error.splitlines()) == 1
    status = json.loads((tmp_path / "run/status.json").read_text())
    assert (status["state"], status["stage"], status["exit_code"]) == ("failed", "1-features", 1)


def test_bf16_trains_float32_weights_on_the_same_images_to_nearly_the_same_losses(
    tmp_path, arguments, elsewhere, lines
):
    settings = ("stages=[I,II]", "baselines=[]", "model.backbone=resnet8")
    traces = []
    for precision in ("no", "bf16"):
        output = tmp_path / precision
        codes, printed = elsewhere(arguments(output, *settings, f"precision={precision}"))
        assert codes == [0], printed
        traces.append(lines(output / "1-features/trace.jsonl"))
        with safe_open(output / "1-features/weights.safetensors", framework="np") as file:
            dtypes = {file.get_tensor(name).dtype.name for name in file.keys()}  # noqa: SIM118
        assert dtypes == {"float32", "int64"}
    for one, other in zip(*traces, strict=True):
        assert one["digest"] == other["digest"]
        assert one["loss"] == pytest.approx(other["loss"], rel=0.05)
    assert traces[0] != traces[1]
