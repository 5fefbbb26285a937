import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
TOPK = ("ssd.II.reads=plan", "ssd.II.bind=S", "ssd.III.reads=S", "tables.topk=4")


@pytest.fixture(scope="module")
def inspect():
    path = ROOT / "tools/inspect_table.py"
    spec = importlib.util.spec_from_file_location("inspect_table", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


@pytest.fixture(scope="module")
def trained(tmp_path_factory, arguments, elsewhere):
    """Return the folder of a run whose stage III has read a `topk` table."""
    output = tmp_path_factory.mktemp("trained") / "run"
    settings = ("methods=[ssd]", *TOPK, "log.trace=false")
    codes, printed = elsewhere(arguments(output, *settings))
    assert codes == [0], printed
    return output


@pytest.fixture
def run(trained, tmp_path):
    """Return a copy of it."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


def test_a_run_is_described_table_by_table(inspect, run, tmp_path, capsys):
    options = ["--json", str(tmp_path / "out.json"), "--figures", str(tmp_path / "figures")]
    assert inspect([str(run), "--audit", "30", *options]) == 0

    found = {Path(each["table"]).name: each for each in json.loads(options_json(tmp_path))}
    assert list(found) == ["ssd-II-table", "ssd-IV-table", "ssd-S"]
    top = found["ssd-S"]
    assert (top["store"], top["num_rows"], top["finished"], top["damaged"]) == (
        "topk",
        342,
        True,
        [],
    )
    size = sum(path.stat().st_size for path in (run / "ssd-S").glob("*.npy"))
    assert top["bytes"] == size
    assert set(top["soft_labels"]) == {"after"}
    rest = np.load(run / "ssd-S/rest.npy").mean(dtype=np.float64)
    assert top["soft_labels"]["after"]["kept_mass"][-1] == pytest.approx(1 - rest, abs=1e-6)
    assert set(found["ssd-II-table"]["soft_labels"]) == {"before", "after"}
    for each in found.values():
        assert each["largest_difference"] <= 0.01 * each["scale"]
        for labels in each["soft_labels"].values():
            assert sum(labels["class_share"]) == pytest.approx(1, abs=1e-5)
    assert len(list((tmp_path / "figures").glob("*-soft-labels.png"))) == 3
    assert "audit of 30 rows: largest difference" in capsys.readouterr().out


def options_json(folder):
    return (folder / "out.json").read_text()


def test_a_damaged_block_is_named_with_exit_code_3(inspect, run, capsys):
    path = run / "ssd-IV-table/logits.npy"
    content = bytearray(path.read_bytes())
    content[200] ^= 4
    path.write_bytes(content)
    assert inspect([str(run)]) == 3
    error = capsys.readouterr().err
    assert f"{path}: block 0 (rows 0 to 319) is damaged" in error
    assert inspect([str(run / "ssd-S")]) == 0


def test_an_audit_finds_rows_that_the_network_never_said(inspect, run, capsys):
    from fastssd.tables.manifest import read_manifest, write_manifest
    from fastssd.tables.table import table_files

    directory = run / "ssd-II-table"
    manifest = read_manifest(directory / "manifest.json")
    logits = np.load(directory / "logits.npy") + np.float16(0.5)
    sums = table_files(directory, manifest).write(0, {"logits": logits})
    manifest["checksums"] = {name: [each] for name, each in sums.items()}
    write_manifest(directory / "manifest.json", manifest)
    assert inspect([str(directory)]) == 0
    assert inspect([str(directory), "--audit", "9"]) == 3
    assert "not what its network says now" in capsys.readouterr().err


def test_an_audit_of_another_networks_table_is_refused_naming_it(inspect, run, capsys):
    from fastssd.tables.manifest import read_manifest, write_manifest

    path = run / "ssd-IV-table/manifest.json"
    manifest = read_manifest(path)
    manifest["weights"] = "others"
    write_manifest(path, manifest)
    assert inspect([str(path.parent), "--audit", "5"]) == 3
    assert "weights is 'others', not" in capsys.readouterr().err


def test_tables_of_each_seed_and_of_images_on_the_device_are_audited_with_those(
    inspect, tmp_path, arguments, here, capsys
):
    settings = ("data.device_images=always", "augment.train=imagenet_plain", "methods=[lws]")
    assert here(arguments(tmp_path / "run", *settings, "seeds=[0,1]", "log.trace=false")) == 0
    manifest = json.loads((tmp_path / "run/seed-1/lws-table/manifest.json").read_text())
    assert manifest["filter"] == "bilinear-antialias-float"
    capsys.readouterr()

    assert inspect([str(tmp_path / "run"), "--audit", "9"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("audit of 9 rows: largest difference 0") == 2
    assert printed.count("soft labels after balancing") == 2


def test_an_unfinished_table_says_how_far_it_is(inspect, run, capsys):
    directory = run / "ssd-II-table"
    (directory / "manifest.json").rename(directory / "unfinished.json")
    assert inspect([str(directory)]) == 0
    assert "unfinished: 0 of 1 blocks" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nowhere"], 2, "no such directory"),
        (["."], 3, "neither a table nor a run"),
    ],
)
def test_what_is_no_table_is_refused(
    inspect, tmp_path, monkeypatch, capsys, arguments, code, message
):
    monkeypatch.chdir(tmp_path)
    assert inspect(arguments) == code
    assert message in capsys.readouterr().err


def test_an_audit_needs_the_run(inspect, run, tmp_path, capsys):
    alone = shutil.copytree(run / "ssd-S", tmp_path / "alone/table")
    assert inspect([str(alone)]) == 0
    assert inspect([str(alone), "--audit", "3"]) == 2
    assert "in no run directory" in capsys.readouterr().err
