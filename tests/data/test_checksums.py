"""A dataset directory is the one that was converted, byte for byte, or says which file is not."""

import importlib.util
import json
from hashlib import sha256
from pathlib import Path

import pytest

from fastssd.data import checksums
from fastssd.data.checksums import check_files, damaged_files
from fastssd.data.convert import convert
from fastssd.data.dataset import open_dataset
from fastssd.data.sources.sources import open_source
from fastssd.errors import DataError


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "digits"
    convert(open_source("digits"), out, max_per_class=4)
    return out


@pytest.fixture
def path(whole, tmp_path):
    out = tmp_path / "digits"
    out.mkdir()
    for file in whole.iterdir():
        (out / file.name).write_bytes(file.read_bytes())
    return out


@pytest.fixture
def tool():
    script = Path(__file__).resolve().parents[2] / "tools/check_dataset.py"
    spec = importlib.util.spec_from_file_location("check_dataset", script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def flip_last_bit(file):
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def test_the_meta_names_every_file_but_itself(whole):
    meta = json.loads((whole / "meta.json").read_text())
    assert set(meta["files"]) == {file.name for file in whole.iterdir()} - {"meta.json"}
    assert not list(damaged_files(whole, meta, whole=True))


def test_one_changed_bit_of_any_file_is_noticed_at_opening(path):
    for file in sorted(path.iterdir()):
        content = file.read_bytes()
        flip_last_bit(file)
        if file.name == "meta.json":
            file.write_bytes(content.replace(b'"name": "digits"', b'"name": "Digits"'))
        split = file.name.partition(".")[0]
        with pytest.raises(DataError, match=file.name):
            open_dataset(path).split("train" if split == "meta" else split)
        file.write_bytes(content)
    open_dataset(path).split("train")


@pytest.mark.parametrize("entry", [None, [], {}, {"bytes": "1"}, {"bytes": None, "xxh3_128": 1}])
def test_an_entry_that_says_no_size_is_named(path, tool, capsys, entry):
    meta = json.loads((path / "meta.json").read_text())
    meta["files"]["train.labels.npy"] = entry
    del meta["sha256"]
    (path / "meta.json").write_text(json.dumps(meta))

    with pytest.raises(DataError, match=r"train\.labels\.npy: `meta.json` does not say how many"):
        open_dataset(path).split("train")
    assert tool.main([str(path)]) == 3
    assert "Traceback" not in capsys.readouterr().err


def test_a_name_that_no_file_can_have_is_missing(path):
    meta = json.loads((path / "meta.json").read_text())
    meta["files"] |= {"train." + "x" * 300: {"bytes": 1}, "train.\0": {"bytes": 1}}
    assert [line.rpartition(": ")[2] for line in damaged_files(path, meta)] == ["missing"] * 2


def test_of_a_large_file_opening_compares_the_size_and_the_tool_everything(
    path, tool, monkeypatch, capsys
):
    assert tool.main([str(path)]) == 0
    assert "all as they were written" in capsys.readouterr().out
    monkeypatch.setattr(checksums, "SMALL", 100)
    images = path / "train.images.npy"
    flip_last_bit(images)
    open_dataset(path).split("train")
    assert tool.main([str(path)]) == 3
    assert f"{images}: was altered" in capsys.readouterr().err
    images.write_bytes(images.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"images\.npy: has \d+ bytes, but \d+ were written"):
        open_dataset(path).split("train")


def test_the_checksum_is_xxh3(tmp_path):
    (tmp_path / "empty").write_bytes(b"")
    assert checksums.describe_files(tmp_path, but="") == {
        "empty": {"bytes": 0, "xxh3_128": "99aa06d3014798d86001c324468d497f"}
    }


def of_blocks(content):
    blocks = [content[start : start + (4 << 20)] for start in range(0, len(content), 4 << 20)]
    return sha256(b"".join(sha256(block).digest() for block in blocks)).hexdigest()


@pytest.mark.parametrize(
    ("key", "digest"),
    [
        ("sha256", lambda content: sha256(content).hexdigest()),
        ("sha256_of_4mib_blocks", of_blocks),
    ],
)
def test_the_checksums_of_older_versions_still_count(key, digest, tmp_path):
    path = tmp_path / "train.images.npy"
    content = bytes(range(256)) * 20_000  # of two blocks
    path.write_bytes(content)
    meta = {"files": {path.name: {"bytes": len(content), key: digest(content)}}}
    check_files(tmp_path, meta, whole=True)
    flip_last_bit(path)
    with pytest.raises(DataError, match=rf"images\.npy: was altered .*\({key}\)"):
        check_files(tmp_path, meta, whole=True)


def test_a_checksum_of_a_later_version_is_not_passed_over(tmp_path):
    (tmp_path / "train.labels.npy").write_bytes(b"x")
    meta = {"files": {"train.labels.npy": {"bytes": 1, "of_2030": "0"}}}
    with pytest.raises(DataError, match=r"labels\.npy: .*no checksum .* knows"):
        check_files(tmp_path, meta)


def test_names_that_lead_elsewhere_stay_in_the_folder(path, tmp_path):
    (tmp_path / "secret").write_text("x")
    meta = {"files": {"../secret": {"bytes": 1, "sha256": "0"}}}
    with pytest.raises(DataError, match="digits/secret: missing"):
        check_files(path, meta, whole=True)


def test_a_dataset_of_an_older_version_is_taken_as_it_stands(path, tool, capsys):
    meta = json.loads((path / "meta.json").read_text())
    del meta["files"], meta["sha256"]
    (path / "meta.json").write_text(json.dumps(meta))
    open_dataset(path).split("train")
    assert tool.main([str(path)]) == 0
    assert "noted no checksums" in capsys.readouterr().out


def test_what_is_no_dataset_ends_with_3(tmp_path, tool, capsys):
    assert tool.main([str(tmp_path)]) == 3
    assert "meta.json" in capsys.readouterr().err
