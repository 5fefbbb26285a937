"""Runs, datasets and sources keep out of each other, and names that no file can have are said."""

import os
import shutil
import subprocess

import pytest
from small_sources import tree

from fastssd.core.places import check_out, check_output, usable
from fastssd.data.convert import convert
from fastssd.data.merge import merge
from fastssd.data.sources.sources import open_source
from fastssd.errors import ConfigError, DataError
from fastssd.recipe_file import load_recipe
from fastssd.runtime.run_directory import claimed


@pytest.fixture
def places(tmp_path):
    """A dataset, a run, a folder of images, and links to them."""
    data, run = tmp_path / "data", tmp_path / "runs/one"
    data.mkdir()
    for name in ("meta.json", "train.labels.npy"):
        (data / name).write_text("{}")
    run.mkdir(parents=True)
    for name in ("config.yaml", "status.json"):
        (run / name).write_text("{}")
    tree(tmp_path / "photos")
    for name in ("data", "runs", "photos"):
        (tmp_path / f"link-to-{name}").symlink_to(tmp_path / name)
    return tmp_path


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("data", "is the dataset directory"),
        ("data/runs/a", "lies in the dataset directory"),
        ("link-to-data/run", "lies in the dataset directory"),
        ("link-to-data", "is the dataset directory"),
        ("new/../data/run", "lies in the dataset directory"),
        (".", "holds the dataset directory"),
        ("runs/one/deeper", "lies in the directory of another run"),
        ("link-to-runs/one/deeper", "lies in the directory of another run"),
        ("runs", "holds other runs' directories, such as one"),
    ],
)
def test_a_run_directory_is_no_part_of_a_dataset_or_of_another_run(places, output, words):
    with pytest.raises(ConfigError, match=f"output=.* {words}"):
        check_output(places / output, places / "data")


def test_a_run_is_kept_out_of_other_datasets_than_its_own(places):
    with pytest.raises(ConfigError, match="lies in the dataset directory"):
        check_output(places / "data/run", places / "elsewhere")


@pytest.mark.parametrize(
    "output", ["runs/one", "runs/two", "link-to-runs/two", "database", "new/a"]
)
def test_a_run_directory_beside_others_is_fine(places, output):
    check_output(places / output, places / "data")


@pytest.mark.parametrize(
    ("out", "words"),
    [
        ("runs/one/data", "lies in the run directory"),
        ("runs/one", "is the run directory"),
        ("data/more", "lies in the dataset directory"),
        ("photos/out", "lies in SOURCE"),
        ("link-to-photos/a/out", "lies in SOURCE"),
        ("photos", "is SOURCE"),
        (".", "holds SOURCE"),
        ("photos/..", "name the directory itself"),
    ],
)
def test_a_dataset_is_no_part_of_a_run_or_of_its_source(places, out, words):
    with pytest.raises(ConfigError, match=f"OUT .*{words}"):
        check_out(places / out, places / "photos")


@pytest.mark.parametrize("out", ["data", "photos-2", "runs/data"])
def test_a_dataset_beside_its_source_is_fine(places, out):
    check_out(places / out, places / "photos")
    check_out(places / out, "digits")


def test_conversion_and_merge_look_first(places):
    for out in ("photos/out", "runs/one/out"):
        with pytest.raises(ConfigError, match="OUT "):
            convert(open_source(str(places / "photos")), places / out)
    with pytest.raises(ConfigError, match="lies in the run directory"):
        merge(places / "runs/one/out")


@pytest.mark.parametrize("name", ["x" * 300, "a\0b", "loop"])
def test_a_name_that_no_file_can_have_is_said(tmp_path, name, arguments, here, digits, capsys):
    from fastssd.evaluation.__main__ import main as evaluate

    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    path = tmp_path / name
    with pytest.raises(ConfigError, match="can't be used"):
        usable(path, "")
    with pytest.raises(ConfigError, match="can't be used"):
        convert(open_source("digits"), path)
    assert here(arguments(path)) == 2
    assert here([*arguments(tmp_path / "run"), f"data.path={path}"]) == 2
    assert evaluate([str(path), str(digits)]) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 3
    assert "Traceback" not in error


def test_a_file_where_a_stage_belongs_and_folders_that_cannot_be_read_are_said(
    tmp_path, arguments, here, capsys, monkeypatch
):
    run = tmp_path / "run"
    run.mkdir()
    (run / "ssd-I").write_text("mine")
    assert here(arguments(run)) == 2
    assert f"{run / 'ssd-I'} is a file" in capsys.readouterr().err

    (run / "ssd-I").unlink()
    (run / "ssd-II").mkdir()
    iterdir = type(run).iterdir

    def locked(path):
        if path.name == "ssd-II":  # as for another user; root may read everything
            raise PermissionError(13, "Permission denied")
        return iterdir(path)

    monkeypatch.setattr(type(run), "iterdir", locked)
    assert here(arguments(run)) == 3
    error = capsys.readouterr().err
    assert f"{run / 'ssd-II'}: cannot be read: Permission denied" in error
    assert len(error.splitlines()) == 1


def test_an_output_that_cannot_be_read_is_said(tmp_path, monkeypatch):
    path = tmp_path / "recipe.yaml"
    path.write_text("output: o\ndata: {path: data}\naugment: {size: 8}\n")
    recipe = load_recipe(path, [f"output={tmp_path}"])

    def locked(path, *rest):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(tmp_path), "iterdir", locked)
    with (
        pytest.raises(DataError, match="cannot be read"),
        claimed(tmp_path, recipe, write=True),
    ):
        raise AssertionError("not reached")


def test_make_clean_removes_what_make_made_and_nothing_else(tmp_path, project):
    shutil.copy(project / "Makefile", tmp_path)
    mine = ["runs/inat/ce/weights.safetensors", "data/inat/meta.json", ".venv/bin/python"]
    made = ["runs/quickstart/report.md", "data/digits/meta.json", "build/a.o", ".mypy_cache/x"]
    made += ["fastssd/__pycache__/a.pyc", "fastssd.egg-info/PKG-INFO"]
    for name in (*mine, *made):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")

    subprocess.run(["make", "clean"], cwd=tmp_path, check=True, capture_output=True)

    left = {os.path.relpath(path, tmp_path) for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {"Makefile", *mine}
