"""Whole runs in one process at a time: killed and resumed, stopped, refused, taught online."""

import json
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

MADE = ("tau_norm", "ncm", "la_posthoc")  # without training
SSD = ("ssd-I", "ssd-II", "ssd-III", "ssd-IV")
FOLDERS = ("ce", "lws", "crt", *MADE, "balanced_softmax", "ldam_drw", *SSD)
INSTANCE = "task={kind: instance, queue: 64, embedding: 16}"
# Everything that a checkpoint has to hold: BatchNorm, momentum encoder and queue.
STATEFUL = (
    "model.backbone=resnet8",
    "methods=[ce,lws,crt,tau_norm,ncm,la_posthoc,balanced_softmax,ldam_drw,ssd]",
    f"ssd.I.{INSTANCE}",
    "la_posthoc.model.tau=null",  # chosen on the validation split
    "ldam_drw.model.class_weights.from=0.5",
)


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory, arguments, elsewhere) -> Path:
    output = tmp_path_factory.mktemp("undisturbed") / "run"
    codes, printed = elsewhere(arguments(output, *STATEFUL))
    assert codes == [0], printed
    return output


def assert_same_run(run: Path, reference: Path, lines) -> None:
    for folder in FOLDERS:
        results = [
            json.loads((each / folder / "result.json").read_text()) for each in (run, reference)
        ]
        assert results[0]["rows"] == results[1]["rows"]
        assert results[0].get("sweep") == results[1].get("sweep")
        for file in ("weights.safetensors", *(() if folder in MADE else ("best.safetensors",))):
            assert (run / folder / file).read_bytes() == (reference / folder / file).read_bytes()
        for file in () if folder in MADE else ("metrics.jsonl", "trace.jsonl"):
            assert lines(run / folder / file) == lines(reference / folder / file), (folder, file)
    rows = [json.loads((each / "report.json").read_text())["rows"] for each in (run, reference)]
    assert rows[0] == rows[1]


def test_a_run_killed_in_every_stage_ends_as_if_it_had_not_been(
    tmp_path, arguments, elsewhere, undisturbed, lines
):
    command = arguments(tmp_path / "run", *STATEFUL)
    steps = len(lines(undisturbed / "ssd-I/trace.jsonl"))
    kills = [
        ("step", "ce", steps // 2 + 1),
        ("table", "lws-table", 0),
        ("step", "lws", steps // 2 + 1),
        ("table", "crt-table", 0),
        ("step", "crt", steps // 2 + 1),
        ("table", "ncm-table", 0),
        ("step", "balanced_softmax", steps // 2 + 1),
        ("step", "ldam_drw", steps // 2 + 1),  # when the classes weigh otherwise
        ("step", "ssd-I", 1),  # before there is a checkpoint
        ("step", "ssd-I", steps - 2),  # in the last epoch, lines after the checkpoint
        ("table", "ssd-T", 0),
        ("step", "ssd-II", steps // 2 + 1),
        ("step", "ssd-III", steps // 2 + 2),
        ("table", "ssd-IV-table", 0),
        ("step", "ssd-IV", steps // 2 + 1),
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
    for folder in ("ssd-III", "ssd-IV", "ssd-IV-table"):
        shutil.rmtree(output / folder)
    config = (output / "config.yaml").read_text().replace(str(undisturbed), str(output))
    (output / "config.yaml").write_text(config)
    steps_per_epoch = len(lines(undisturbed / "ssd-III/trace.jsonl")) // 2
    step = steps_per_epoch + 2
    command = arguments(output, *STATEFUL)

    codes, printed = elsewhere(command, at=("step", "ssd-III", step), signal_number=signal.SIGTERM)

    assert codes == [128 + signal.SIGTERM]
    assert "Traceback" not in printed[0]
    assert "ssd-I: finished before" in printed[0]
    status = json.loads((output / "status.json").read_text())
    assert (status["state"], status["stage"], status["exit_code"]) == ("stopped", "ssd-III", 143)
    with safe_open(output / "ssd-III/checkpoint.safetensors", framework="pt") as file:
        progress = json.loads(file.metadata()["progress"])
    assert (progress["epoch"], progress["step"]) == (1, step + 1)
    assert len(lines(output / "ssd-III/trace.jsonl")) == step + 1
    codes, printed = elsewhere(command)
    assert codes == [0], printed
    assert_same_run(output, undisturbed, lines)


def test_sigterm_while_a_table_is_made_stops_the_run_at_once(tmp_path, arguments, elsewhere):
    command = arguments(tmp_path / "run", "methods=[ce,lws]", "budgets.scratch.epochs=1")
    elsewhere([*command, "evaluation.batch_size=32"], at=("step", "lws", 0))
    for folder in ("lws", "lws-table"):
        shutil.rmtree(tmp_path / "run" / folder)

    codes, _ = elsewhere(
        [*command, "evaluation.batch_size=32"],
        at=("table", "lws-table", 1),
        signal_number=signal.SIGTERM,
    )

    assert codes == [143]
    assert (tmp_path / "run/lws-table").is_dir()
    assert not (tmp_path / "run/lws-table/manifest.json").exists()
    assert not (tmp_path / "run/lws/checkpoint.safetensors").exists()


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
    assert names == {
        *("CE", "LWS", "cRT", "tau-norm", "NCM", "LA post-hoc", "Balanced softmax", "LDAM-DRW"),
        *("SSD I", "SSD II", "SSD III-hard", "SSD III-soft", "SSD IV"),
    }
    assert json.loads((undisturbed / "status.json").read_text())["state"] == "done"
    assert set(json.loads((undisturbed / "environment.json").read_text())) >= {"packages", "device"}
    assert "table" in json.loads((undisturbed / "ssd-II/result.json").read_text())["seconds"]
    train = [line for line in lines(undisturbed / "ssd-I/metrics.jsonl") if line["kind"] == "train"]
    assert set(train[0]["losses"]) == {"classification", "instance"}
    assert set(train[0]["accuracy"]) == {"classification", "instance"}
    groups = {group for line in train for group in line["accuracy"]["instance"]}
    assert groups == {"overall", "medium", "few"}  # no class has 100 images here


@pytest.fixture(scope="module")
def taught(tmp_path_factory, arguments, elsewhere):
    """Return stage III's folder by kind of teacher, on the same stage I.

    Online it is on the same stage II too; one of float16 learns its scales from its own table.
    Stage IV, of which nothing is asked here, is short.
    """
    root = tmp_path_factory.mktemp("taught")
    common = (
        "methods=[ssd]",
        "ssd.III.budget={base: scratch, epochs: 10, batch_size: 16}",
        "ssd.IV.budget={base: classifier, epochs: 1}",
    )

    def train(name: str, *overrides: str) -> Path:
        codes, printed = elsewhere(arguments(root / name, *common, *overrides))
        assert codes == [0], printed
        return root / name / "ssd-III"

    folders = {"float32": train("float32", "tables.dtype=float32")}
    for name, copied, overrides in (
        ("online", SSD[:2], ("ssd.III.reads=images", "ssd.III.bind=T", "tables.dtype=float32")),
        ("float16", SSD[:1], ("tables.dtype=float16",)),
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
    tmp_path, arguments, here, undisturbed, capsys
):
    output = tmp_path / "run"
    shutil.copytree(undisturbed, output)

    def files() -> dict[Path, bytes]:
        found = {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}
        return {path: found[path] for path in found if path.name not in ("status.json", ".lock")}

    before = files()

    code = here(arguments(output, *STATEFUL, "ssd.III.temperature=3"))

    error = capsys.readouterr().err
    assert code == 2
    assert "ssd-III: options.temperature is at its default, not 3.0" in error
    assert "ssd-IV: the source that it stands on was another" in error
    assert len(error.splitlines()) == 4  # what is wrong, of either stage, and what to do
    assert files() == before
    status = json.loads((output / "status.json").read_text())
    assert (status["state"], status["stage"], status["exit_code"]) == ("failed", None, 2)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("model.backbone=resnet9", ("model.backbone", "resnet8")),
        ("augment.train=digit", ("augment.train", "digits")),
        ("augment.test=hole", ("augment.test", "whole")),
        ("data.test=tset", ("data.test", "test")),
        ("data.validation=valid", ("data.validation", "val")),
        ("ssd.III.budget={base: scratch, batch_size: 4096}", ("ssd.III.budget", "4096")),
        ("budgets.classifier.accumulate=3", ("lws.model.budget", "3 micro-batches")),
        ("augment.size=16", ("augment.train", "8 x 8")),
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


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("ssd.I.sampler=instanse", ("ssd.I.sampler", "instance")),
        ("ssd.II.sampler=class_awar", ("ssd.II.sampler", "class_aware")),
    ],
)
def test_what_is_wrong_whatever_the_data_ends_with_2_and_makes_no_run_directory(
    tmp_path, arguments, here, capsys, override, words
):
    code = here(arguments(tmp_path / "run", override))

    error = capsys.readouterr().err
    assert code == 2
    assert len(error.splitlines()) == 1
    assert all(word in error for word in words), error
    assert not (tmp_path / "run").exists()


def test_missing_data_ends_with_3_and_a_run_that_never_began_may_be_mended(
    tmp_path, arguments, here, elsewhere, capsys
):
    command = arguments(tmp_path / "run", "methods=[ce]", "budgets.scratch.epochs=1")

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
            "augment.train=imagenet_plain",
            "augment.size=8",
            "budgets.scratch.batch_size=8",
            "budgets.classifier.batch_size=8",
        )
    )

    error = capsys.readouterr().err
    assert code == 3, error
    assert ".jpg" in error
    assert "Traceback" not in error
    assert len(error.splitlines()) == 1
    status = json.loads((tmp_path / "run/status.json").read_text())
    assert (status["state"], status["stage"], status["exit_code"]) == ("failed", "ce", 3)


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
    code = here(arguments(tmp_path / "run", "budgets.scratch.lr=1e6"))

    error = capsys.readouterr().err
    assert code == 1
    assert "ce: " in error
    assert "lower the learning rate" in error
    assert len(error.splitlines()) == 1
    status = json.loads((tmp_path / "run/status.json").read_text())
    assert (status["state"], status["stage"], status["exit_code"]) == ("failed", "ce", 1)


def test_bf16_trains_float32_weights_on_the_same_images_to_nearly_the_same_losses(
    tmp_path, arguments, elsewhere, lines
):
    settings = ("methods=[ce,lws]", "model.backbone=resnet8")
    traces = []
    for precision in ("no", "bf16"):
        output = tmp_path / precision
        codes, printed = elsewhere(arguments(output, *settings, f"precision={precision}"))
        assert codes == [0], printed
        traces.append(lines(output / "ce/trace.jsonl"))
        with safe_open(output / "ce/weights.safetensors", framework="np") as file:
            dtypes = {file.get_tensor(name).dtype.name for name in file.keys()}  # noqa: SIM118
        assert dtypes == {"float32", "int64"}
    for one, other in zip(*traces, strict=True):
        assert one["digest"] == other["digest"]
        assert one["loss"] == pytest.approx(other["loss"], rel=0.05)
    assert traces[0] != traces[1]
