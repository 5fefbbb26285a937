"""Full disks, damaged files of finished stages, processes that hang: whole runs of one stage."""

import json
import shutil
import signal

import pytest

SMALL = ("methods=[ce]", "model.backbone=resnet8")
FOLDER = "ce"


@pytest.fixture(scope="module")
def whole(tmp_path_factory, arguments, elsewhere):
    output = tmp_path_factory.mktemp("whole") / "run"
    codes, printed = elsewhere(arguments(output, *SMALL))
    assert codes == [0], printed
    return output


@pytest.fixture
def run(whole, tmp_path):
    """Return a copy of the finished run."""
    output = tmp_path / "run"
    shutil.copytree(whole, output)
    config = (output / "config.yaml").read_text().replace(str(whole), str(output))
    (output / "config.yaml").write_text(config)
    return output


def assert_same(run, reference, lines):
    weights = [(each / FOLDER / "weights.safetensors").read_bytes() for each in (run, reference)]
    assert weights[0] == weights[1]
    for file in ("metrics.jsonl", "trace.jsonl"):
        assert lines(run / FOLDER / file) == lines(reference / FOLDER / file)


@pytest.mark.parametrize(
    ("share", "file"), [(0.003, "config.yaml"), (0.5, "best.safetensors"), (1.2, "checkpoint")]
)
def test_a_full_disk_names_the_file_and_the_run_goes_on_when_there_is_room(
    tmp_path, arguments, elsewhere, whole, lines, share, file
):
    size = int(share * (whole / FOLDER / "weights.safetensors").stat().st_size)
    command = arguments(tmp_path / "run", *SMALL)
    if file != "config.yaml":  # a run that began, and whose disk is full now
        codes, _ = elsewhere(command, at=("step", FOLDER, 1))
        assert codes == [-signal.SIGKILL]
    script = f"""
import resource, sys, fastssd.train
resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, resource.RLIM_INFINITY))
sys.exit(fastssd.train.main({command!r}))
"""
    _, printed = elsewhere(script=script)

    assert "SystemExit: 3" in printed[0]
    message = next(line for line in printed[0].splitlines() if line.startswith("fastssd: "))
    assert file in message
    assert "make room there" in message
    codes, printed = elsewhere(command)
    assert codes == [0], printed
    assert_same(tmp_path / "run", whole, lines)


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_damaged_weights_of_a_finished_stage_are_made_again_from_its_checkpoint(
    run, arguments, elsewhere, whole, lines
):
    flip(run / FOLDER / "weights.safetensors")

    codes, printed = elsewhere(arguments(run, *SMALL))

    assert codes == [0], printed
    assert "weights.safetensors is missing or was altered" in printed[0]
    assert_same(run, whole, lines)
    assert (run / FOLDER / "result.json").exists()


def test_without_a_checkpoint_damaged_weights_end_with_3_and_what_to_delete(
    run, arguments, here, capsys
):
    flip(run / FOLDER / "weights.safetensors")
    for path in (run / FOLDER).glob("checkpoint*"):
        path.unlink()
    assert here(arguments(run, *SMALL)) == 3
    error = capsys.readouterr().err
    assert "weights.safetensors" in error
    assert "delete the folder" in error
    assert (run / FOLDER / "result.json").exists()


def test_damaged_best_weights_end_with_3_and_the_run_goes_on_without_them(
    run, arguments, here, elsewhere, capsys
):
    flip(run / FOLDER / "best.safetensors")
    assert here(arguments(run, *SMALL)) == 3
    assert "best.safetensors" in capsys.readouterr().err
    for name in ("best.safetensors", "result.json"):
        (run / FOLDER / name).unlink()
    codes, printed = elsewhere(arguments(run, *SMALL))
    assert codes == [0], printed


def test_an_altered_result_is_measured_again(run, arguments, elsewhere, whole):
    path = run / FOLDER / "result.json"
    result = json.loads(path.read_text())
    result["rows"][0]["correct"][0] += 1
    path.write_text(json.dumps(result))

    codes, printed = elsewhere(arguments(run, *SMALL))

    assert codes == [0], printed
    assert "measured again" in printed[0]
    rows = [
        json.loads((each / FOLDER / "result.json").read_text())["rows"] for each in (run, whole)
    ]
    assert rows[0] == rows[1]


def test_where_one_process_hangs_both_end_and_say_where(tmp_path, arguments, elsewhere):
    # Which of the two says so first is chance: the other then has lost it, and `main` returns.
    script = f"""
import os, sys, threading, fastssd.train, fastssd.training.trainer
step = fastssd.training.trainer.Trainer._train_step
def hang(self, batches):
    if rank == 1 and self.progress.step == 3:
        threading.Event().wait()
    step(self, batches)
fastssd.training.trainer.Trainer._train_step = hang
code = fastssd.train.main({arguments(tmp_path / "run", *SMALL, "watchdog=12")!r})
sys.stdout.flush(), sys.stderr.flush()
os._exit(code)
"""
    codes, printed = elsewhere(script=script, ranks=2)

    assert codes == [1, 1]
    for rank in (0, 1):
        assert f"rank {rank} on " in printed[rank]
        assert f"in {FOLDER}: nothing has happened for 12 s, at fastssd/" in printed[rank] or (
            "lost another process" in printed[rank]
        )
    assert any("Current thread" in each for each in printed)  # every thread's stack
    status = json.loads((tmp_path / "run/status.json").read_text())
    assert (status["state"], status["exit_code"]) == ("failed", 1)


def test_a_process_whose_peers_never_come_ends_and_says_where_it_waited(
    tmp_path, arguments, elsewhere
):
    script = f"""
import os, fastssd.train
os.environ.update(WORLD_SIZE="2", RANK="0", LOCAL_RANK="0")
fastssd.train.main({arguments(tmp_path / "run", *SMALL, "watchdog=4")!r})
"""
    codes, printed = elsewhere(script=script)

    assert codes == [1]
    assert "rank 0 on " in printed[0]
    assert "finding the other processes at 127.0.0.1:" in printed[0]
    assert "nothing has happened for 4 s" in printed[0]
