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


@pytest.mark.parametrize("num_bytes", [101, 200, 999])
def test_the_checksum_of_a_large_file_is_that_of_its_blocks(num_bytes, tmp_path, monkeypatch):
    monkeypatch.setattr(checksums, "BLOCK", 100)
    path = tmp_path / "train.images.npy"
    content = bytes(number * 7 % 256 for number in range(num_bytes))
    path.write_bytes(content)
    blocks = [content[start : start + 100] for start in range(0, num_bytes, 100)]
    expected = sha256(b"".join(sha256(block).digest() for block in blocks)).hexdigest()
    written = checksums.describe_files(tmp_path, but="")
    assert written == {
        path.name: {"bytes": num_bytes, "sha256_of_4mib_blocks": expected},
    }
    assert not list(damaged_files(tmp_path, {"files": written}))
    for at in range(0, num_bytes, 50):
        path.write_bytes(content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :])
        assert list(damaged_files(tmp_path, {"files": written}))


def test_the_plain_checksum_of_a_large_file_of_an_older_version_still_counts(path, monkeypatch):
    monkeypatch.setattr(checksums, "BLOCK", 100)
    check_files(path, json.loads((path / "meta.json").read_text()), whole=True)
    flip_last_bit(path / "train.images.npy")
    with pytest.raises(DataError, match=r"images\.npy: was altered"):
        check_files(path, json.loads((path / "meta.json").read_text()), whole=True)


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
