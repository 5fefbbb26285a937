"""Labels and paths are read and checked alike, whatever kind of source writes them."""

import csv
import io
import json
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastssd.data.sources.rows import Within, label_text, whole_number
from fastssd.data.sources.sources import open_source
from fastssd.errors import DataError


def images(root, *names):
    for name in names or ("0.jpg", "1.jpg", "2.jpg"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def as_list(root, rows):
    (root / "a.txt").write_text("".join(f"{path} {label}\n" for path, label in rows))
    return open_source(str(root / "a.txt"))


def as_csv(root, rows):
    with (root / "a.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label"), *rows])
    return open_source(str(root / "a.csv"))


def as_inat(root, rows):
    labels = sorted({label for _, label in rows}, key=str)
    content = {
        "images": [{"id": i, "file_name": path} for i, (path, _) in enumerate(rows)],
        "annotations": [{"image_id": i, "category_id": row[1]} for i, row in enumerate(rows)],
        "categories": [{"id": label, "name": f"n{label}"} for label in labels],
    }
    (root / "a.json").write_text(json.dumps(content))
    return open_source(str(root / "a.json"))


def as_parquet(root, rows):
    arrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    parquet = pytest.importorskip("pyarrow.parquet")
    files = [{"bytes": None, "path": path} for path, _ in rows]
    kind = arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])
    columns = {
        "image": arrow.array(files, kind),
        "label": arrow.array([label for _, label in rows]),
    }
    parquet.write_table(arrow.table(columns), root / "train.parquet")
    return open_source(str(root))


def as_shard(root, rows):
    with tarfile.open(root / "a.tar", "w") as tar:
        for i, (_, label) in enumerate(rows):
            text = label if isinstance(label, bytes) else json.dumps(label).encode()
            kind = "cls" if isinstance(label, bytes) else "json"
            for name, content in ((f"{i}.jpg", b""), (f"{i}.{kind}", text)):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return open_source(str(root / "a.tar"))


FILES = {"list": as_list, "csv": as_csv, "inat": as_inat, "parquet": as_parquet}
DIGITS = "7" * 5000
NAN, INFINITY = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("make", "label", "said"),
    [
        (as_parquet, None, "row 1 of train.*null is no label"),
        (as_parquet, NAN, "row 1 of train.*NaN is no label"),
        (as_parquet, INFINITY, "row 1 of train.*'inf' is not a whole number"),
        (as_parquet, 0.5, "row 1 of train.*'0.5' is not a whole number"),
        (as_shard, [0], "a list is no label"),
        (as_shard, {"label": {"a": 1}}, "a dict is no label"),
        (as_shard, None, "null is no label"),
        (as_shard, NAN, "NaN is no label"),
        (as_shard, "a\nb", "no label"),
        (as_shard, DIGITS.encode(), "a text of 5,000 characters"),
        (as_shard, b"9" * 900, "too large for the number of a class"),
        (as_list, DIGITS, "line 2.*a text of 5,000 characters"),
        (as_list, "9" * 30, "line 2.*too large for the number of a class"),
        (as_list, "nan", "line 2.*has no label, but 'nan'"),
        (as_csv, DIGITS, "line 3.*a text of 5,000 characters"),
        (as_csv, "None", "line 3.*has no label, but 'None'"),
        (as_csv, " ", "line 3.*no label"),
        (as_inat, INFINITY, "'inf' is not a whole number"),
        (as_inat, NAN, "'nan' is not a whole number"),
        (as_inat, 1.5, "'1.5' is not a whole number"),
        (as_inat, "x", "'x' is not a whole number"),
    ],
)
def test_what_is_no_label_is_refused_with_its_place(tmp_path, make, label, said):
    images(tmp_path)
    first = label if isinstance(label, list | dict) else 0.0 if isinstance(label, float) else 0
    first = b"0" if isinstance(label, bytes) else first
    with pytest.raises(DataError, match=rf"(?s){said}"):
        make(tmp_path, [("0.jpg", first), ("1.jpg", label), ("2.jpg", first)])


def test_a_list_in_a_parquet_column_is_no_label(tmp_path):
    with pytest.raises(DataError, match=r"row 0 of train.*a list is no label"):
        as_parquet(tmp_path, [("0.jpg", [0]), ("1.jpg", [1])])


@pytest.mark.parametrize(
    ("make", "labels", "classes"),
    [
        (as_parquet, [1.0, 0.0, 1.0], ["0", "1"]),
        (as_parquet, [True, False, True], ["False", "True"]),
        (as_parquet, [b"bee", b"ant", b"bee"], ["ant", "bee"]),
        (as_csv, ["1.0", "0", "01"], ["0", "1"]),
        (as_csv, ["é", "e\u0301", "a"], ["a", "é"]),
        (as_csv, ["none", "crack", "none"], ["crack", "none"]),
        (as_list, ["00", "0", "1"], ["0", "1"]),
        (as_shard, ["1", 0, 1.0], ["0", "1"]),
        (as_inat, [2, 1.0, 2], ["n1.0", "n2"]),
    ],
)
def test_one_label_written_in_two_ways_is_one_class(tmp_path, make, labels, classes):
    images(tmp_path)
    source = make(tmp_path, [(f"{i}.jpg", label) for i, label in enumerate(labels)])
    assert list(source.classes) == classes
    assert sorted(set(source.splits["train"].labels.tolist())) == [0, 1]


def test_a_class_that_may_mean_no_label_is_said(tmp_path):
    images(tmp_path)
    source = as_csv(tmp_path, [("0.jpg", "none"), ("1.jpg", "crack")])
    assert "may mean that there is no label: 'none'" in " ".join(source.notes)


@pytest.mark.parametrize("make", FILES.values(), ids=FILES)
def test_two_ways_to_write_one_path_are_one_image(tmp_path, make):
    images(tmp_path, "img/x.jpg", "img/y.jpg")
    (tmp_path / "link").symlink_to(tmp_path)
    ways = ["img/x.jpg", "./img/x.jpg", "img//x.jpg", "img/../img/x.jpg", f"{tmp_path}/img/x.jpg"]

    source = make(tmp_path, [*((path, 0) for path in ways), ("img/y.jpg", 1)])

    assert list(source.splits["train"].names) == ["img/x.jpg", "img/y.jpg"]
    assert source.splits["train"].labels.tolist() == [0, 1]
    assert source.splits["train"].read(1) == b""
    assert "4 images are listed more than once" in " ".join(source.notes)
    with pytest.raises(DataError, match=r"img/x\.jpg has the label 1, and the label 0 in"):
        make(tmp_path, [("img/x.jpg", 0), ("./img/x.jpg", 1)])


@pytest.mark.parametrize("path", ["../x.jpg", "a/../../x.jpg", "/etc/x.jpg", "//etc/x.jpg", "."])
@pytest.mark.parametrize("make", FILES.values(), ids=FILES)
def test_a_path_that_leaves_the_source_is_refused(tmp_path, make, path):
    (tmp_path / "x.jpg").touch()
    images(tmp_path / "in", "0.jpg")
    with pytest.raises(DataError, match=r"lies outside of|path of a folder"):
        make(tmp_path / "in", [("0.jpg", 0), (path, 1)])


@pytest.mark.parametrize("file", ["../x.arrow", "/etc/x.arrow"])
def test_a_state_json_that_names_files_elsewhere_is_refused(tmp_path, file):
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    (tmp_path / "state.json").write_text(json.dumps({"_data_files": [{"filename": file}]}))
    with pytest.raises(DataError, match="lies outside of"):
        open_source(str(tmp_path))
    (tmp_path / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "../test"]}))
    with pytest.raises(DataError, match="lies outside of"):
        open_source(str(tmp_path))


def test_a_root_that_is_a_link_may_be_named_by_either_path(tmp_path):
    images(tmp_path / "real", "0.jpg")
    (tmp_path / "link").symlink_to("real")
    within = Within(tmp_path / "link")
    assert within.relative(f"{tmp_path}/link/0.jpg") == "0.jpg"
    assert within.relative(f"{tmp_path}/real/0.jpg") == "0.jpg"


PARTS = st.sampled_from(["..", ".", "", "a", "b", "...", "~", "r", "s"])


@given(st.lists(PARTS, min_size=1, max_size=7).map("/".join), st.sampled_from(["/r/s", "/", "."]))
def test_no_path_leaves_the_root_and_what_is_given_is_in_its_shortest_form(text, root):
    try:
        path = Within(Path(root)).relative(text)
    except ValueError:
        return
    assert path
    assert not set(path.split("/")) & {"", ".", ".."}
    assert Within(Path(root)).relative(path) == path


@given(st.text() | st.binary() | st.floats() | st.integers() | st.lists(st.integers()) | st.none())
def test_a_label_is_one_line_of_text_or_refused(value):
    try:
        text = label_text(value)
    except ValueError:
        return
    assert text == text.strip()
    assert len(text.splitlines()) == 1
    assert label_text(text) == text


@given(st.integers(-(10**6), 10**6))
def test_whole_numbers_are_read_from_numbers_and_texts(number):
    assert (
        whole_number(number) == whole_number(str(number)) == whole_number(float(number)) == number
    )
