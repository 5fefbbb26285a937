"""What can be wrong with a source or an output: each with its message and exit code.

One table, run through the command line. Every case makes its own small files.
"""

import importlib.util
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from small_sources import (
    below_a_file,
    empty_class,
    empty_part,
    entry,
    existing,
    in_cifar,
    in_json,
    in_list,
    in_tar,
    in_tree,
    jpeg,
    linked_class,
    listed,
    not_a_dataset,
    piped,
    put,
    remade,
    skipped_class,
    skipped_part,
    tree,
    truncated_beton,
    unknown_test_class,
)

PROJECT = Path(__file__).resolve().parents[2]
SCRIPT = PROJECT / "tools" / "convert_dataset.py"


@pytest.fixture(scope="module")
def main():
    """The command line, within this process."""
    spec = importlib.util.spec_from_file_location("convert_dataset", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


GOOD = "ant/0.jpg 0\nbee/0.jpg 1\n"
SAMPLE = [("0.jpg", jpeg()), ("0.cls", b"0")]

# what is wrong: how to make it, exit code, and what the message must say
CASES = {
    "no such source": (lambda root: ["nowhere", "out"], 2, ["nowhere"]),
    "a misspelt name": (lambda root: ["imagnet_lt", "out"], 2, ["did you mean imagenet_lt"]),
    "an unknown kind of file": (
        lambda root: [str(put(root, {"a.doc": "x"}) / "a.doc"), "out"],
        2,
        ["a.doc", "--kind"],
    ),
    "a name without its root": (lambda root: ["inat18", "out"], 2, ["--root", "train_val2018"]),
    "a root that is not there": (
        lambda root: ["places_lt", "out", "--root", "gone"],
        2,
        ["--root gone"],
    ),
    "an option of another kind": (in_tree({}, "--label-column", "x"), 2, ["--label-column", "csv"]),
    "a folder without classes": (
        lambda root: [str(put(root / "src", {"0.jpg": jpeg()})), "out"],
        2,
        ["src", "CLASS"],
    ),
    "an empty class folder": (empty_class, 2, ["'yak'"]),
    "a test class without training images": (unknown_test_class, 3, ["yak"]),
    "folders that could be classes or splits": (
        lambda root: [str(put(root / "src", {"train_set/ant/0.jpg": jpeg()})), "out"],
        2,
        ["train_set", "--split-names train=train_set"],
    ),
    "a split name of no folder": (
        lambda root: [str(tree(root / "src")), "out", "--split-names", "train=x"],
        2,
        ["--split-names train=x", "ant, bee"],
    ),
    "an empty validation folder": (empty_part, 3, ["val part", "no images"]),
    "a class that is a link to another": (linked_class, 3, ["yak", "'ant'", "one label"]),
    "a shard whose partner is missing": (
        lambda root: [str(put(root, {"src/train-0-of-2.tar": bytes(1024)}) / "src"), "out"],
        3,
        ["train-0-of-2.tar", "missing is number 1"],
    ),
    "an empty file": (in_tree({"ant/1.jpg": b""}), 3, ["ant/1.jpg", "empty"]),
    "a truncated JPEG": (in_tree({"ant/1.jpg": jpeg()[:-30]}), 3, ["ant/1.jpg", "--on-error skip"]),
    "a text file called .jpg": (in_tree({"bee/2.jpg": "hello"}), 3, ["bee/2.jpg", "JPEG, PNG"]),
    "an EPS file called .jpg": (
        in_tree({"bee/2.jpg": "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"}),
        3,
        ["bee/2.jpg", "JPEG, PNG"],
    ),
    "a link to a device": (
        in_list(GOOD + "zero.jpg 1\n", links={"zero.jpg": "/dev/zero"}),
        3,
        ["zero.jpg", "it is a device, not a file"],
    ),
    "an image of eight terabytes": (
        in_list(GOOD + "ant/9.jpg 0\n", links={"ant/9.jpg": None}),
        3,
        ["ant/9.jpg", "8,796,093,022,208 bytes", "1,073,741,824"],
    ),
    "a class that is all damaged": (skipped_class, 3, ["'bee'", "bee/0.jpg"]),
    "a part that is all damaged": (skipped_part, 3, ["val split", "val/ant/0.jpg"]),
    "a missing file": (in_list(GOOD + "ant/gone.jpg 0"), 3, ["1 of 3", "ant/gone.jpg"]),
    "files that are all missing": (
        in_list("x/0.jpg 0\ny/0.jpg 1", "--on-error", "skip"),
        3,
        ["2 of 2", "--root"],
    ),
    "a directory in place of an image": (
        in_list("ant/0.jpg 0\n. 1\n", "--on-error", "fail"),
        3,
        ["."],
    ),
    "a line without a label": (in_list(GOOD + "ant/1.jpg\n"), 3, ["a.txt, line 3", "PATH LABEL"]),
    "an empty list": (in_list("\n\n"), 3, ["a.txt", "no images"]),
    "two labels for one image": (
        in_list(GOOD + "ant/0.jpg 1"),
        3,
        ["a.txt, line 3", "ant/0.jpg", "line 1"],
    ),
    "two labels for one image by two paths": (
        in_list(GOOD + "./ant/0.jpg 1"),
        3,
        ["a.txt, line 3", "ant/0.jpg", "line 1"],
    ),
    "a path that leaves the root": (
        in_list(GOOD + "../secret.jpg 0"),
        3,
        ["a.txt, line 3", "outside of images", "--root"],
    ),
    "a pipe in a list": (piped, 3, ["images/ant/pipe.jpg", "never opened"]),
    "a label of 5,000 digits": (
        in_list(GOOD + "ant/1.jpg " + "1" * 5000),
        3,
        ["a.txt, line 3", "5,000 characters"],
    ),
    "a gap in the labels": (in_list("ant/0.jpg 0\nbee/0.jpg 2"), 3, ["1 of 3 classes", ": 1;"]),
    "labels that start at 1": (in_list("ant/0.jpg 1\nbee/0.jpg 2"), 3, ["must start at 0"]),
    "a negative label": (in_list(GOOD + "ant/1.jpg -1"), 3, ["a.txt, line 3", "label -1"]),
    "a label of twelve digits": (
        in_list(GOOD + "ant/1.jpg 999999999999"),
        3,
        ["a.txt", "without gaps"],
    ),
    "numbers and names mixed": (
        lambda root: [
            str(
                put(listed(root, GOOD, "a_train.txt"), {"a_test.txt": "ant/1.jpg ant"})
                / "a_train.txt"
            ),
            "out",
            "--root",
            str(root / "images"),
        ],
        3,
        ["a_test.txt, line 1", "'ant'"],
    ),
    "a test label out of range": (
        lambda root: [
            str(
                put(listed(root, GOOD, "a_train.txt"), {"a_test.txt": "ant/1.jpg 2"})
                / "a_train.txt"
            ),
            "out",
            "--root",
            str(root / "images"),
        ],
        3,
        ["a_test.txt, line 1", "label 2", "0 to 1"],
    ),
    "fewer class names than classes": (
        lambda root: [
            *in_list(GOOD)(root),
            "--classes",
            str(put(root, {"names": "ant\n"}) / "names"),
        ],
        3,
        ["a.txt, line 2", "class names, 0 to 0"],
    ),
    "class names that repeat": (
        lambda root: [
            *in_list(GOOD)(root),
            "--classes",
            str(put(root, {"names": "ant\nant\n"}) / "names"),
        ],
        2,
        ["names", "'ant' more than once"],
    ),
    "a test part that is not there": (in_list(GOOD, "--test", "gone.txt"), 2, ["--test gone.txt"]),
    "a test part that is a pipe": (
        in_list(GOOD, "--test", "pipe", pipe="pipe"),
        3,
        ["pipe", "it is a pipe, not a file"],
    ),
    "class names in a pipe": (
        in_list(GOOD, "--classes", "pipe", pipe="pipe"),
        2,
        ["--classes pipe", "it is a pipe, not a file"],
    ),
    "a CSV file of many columns": (
        in_list("path,label" + ",x" * 5000 + "\nant/0.jpg,ant\n", name="a.csv"),
        3,
        ["a.csv", "5,002 columns"],
    ),
    "a CSV file without a header of use": (
        in_list("a,b\nant/0.jpg,ant\n", name="a.csv"),
        2,
        ["a.csv", "a, b", "--image-column"],
    ),
    "a CSV row without a label": (
        in_list("path,label\nant/0.jpg,ant\nbee/0.jpg\n", name="a.csv"),
        3,
        ["a.csv, line 3"],
    ),
    "a CSV row of an unknown split": (
        in_list("path,label,split\nant/0.jpg,ant,tran\n", name="a.csv"),
        3,
        ["line 2", "'tran'"],
    ),
    "a CSV file with an open quote": (
        in_list('path,label\n"ant/0.jpg,ant\n', name="a.csv"),
        3,
        ["a.csv", "not CSV"],
    ),
    "JSON that is cut short": (
        lambda root: [str(put(root, {"a.json": '{"images": ['}) / "a.json"), "out"],
        3,
        ["a.json", "JSON"],
    ),
    "JSON that is nested too deep": (
        lambda root: [str(put(root, {"a.json": "[" * 200_000}) / "a.json"), "out"],
        3,
        ["a.json", "nested too deep"],
    ),
    "a dataset's description that is nested too deep": (
        lambda root: [str(put(root / "src", {"state.json": "[" * 100_000})), "out"],
        3,
        ["state.json", "nested too deep"],
    ),
    "a dataset's description that lacks a key": (
        lambda root: [str(put(root / "src", {"dataset_dict.json": '{"split": []}'})), "out"],
        3,
        ["dataset_dict.json", "'splits'"],
    ),
    "JSON of another form": (in_json(lambda c: c.pop("annotations")), 3, ["annotations"]),
    "an image without annotation": (
        in_json(lambda c: c["annotations"].pop()),
        3,
        ["image 3 (bee/1.jpg)", "no annotation"],
    ),
    "an image of two categories": (
        in_json(lambda c: c["annotations"].append({"image_id": 0, "category_id": 1})),
        3,
        ["image 0", "two categories"],
    ),
    "an unknown category": (
        in_json(lambda c: c["categories"].pop()),
        3,
        ["category 1", "image 2"],
    ),
    "a category without images": (
        in_json(lambda c: c["categories"].append({"id": 9, "name": "yak"})),
        2,
        ["'yak'"],
    ),
    "a category that is Infinity": (
        in_json(lambda c: c["annotations"][0].update(category_id=float("inf"))),
        3,
        ["train2018.json", "'inf' is not a whole number"],
    ),
    "a category that is there twice": (
        in_json(lambda c: c["categories"].append({"id": 0, "name": "yak"})),
        3,
        ["two categories of one id"],
    ),
    "missing JSON fields": (in_json(remade(images=[{"id": 0}])), 3, ["file_name"]),
    "a CIFAR file that is missing": (
        in_cifar(test=lambda files, name: files.pop(name)),
        3,
        ["lacks test"],
    ),
    "a CIFAR label out of range": (
        in_cifar(train=entry("fine_labels", [100] * 200)),
        3,
        ["train", "label 100 of image 0"],
    ),
    "CIFAR data of another shape": (
        in_cifar(train=entry("data", np.zeros((200, 3), np.uint8))),
        3,
        ["train", "3072"],
    ),
    "CIFAR names that are too few": (in_cifar(meta=entry("fine_label_names", ["c"])), 3, ["meta"]),
    "a pickle that asks for a function": (
        in_cifar(train=entry("data", os.getcwd)),
        3,
        ["posix.getcwd", "nothing was run"],
    ),
    "a CIFAR binary file cut short": (
        lambda root: [
            str(
                put(
                    root / "src",
                    {
                        "train.bin": bytes(3073),
                        "test.bin": bytes(3074),
                        "fine_label_names.txt": "\n".join(map(str, range(100))),
                    },
                )
            ),
            "out",
        ],
        3,
        ["train.bin", "3074", "cut short"],
    ),
    "a damaged archive": (
        lambda root: [
            str(
                put(root, {"cifar-10-python.tar.gz": b"\x1f\x8b" + bytes(99)})
                / "cifar-10-python.tar.gz"
            ),
            "out",
        ],
        3,
        ["cifar-10-python.tar.gz", "damaged"],
    ),
    "a shard that is cut short": (in_tar(SAMPLE, keep=900), 3, ["a.tar"]),
    "a shard without an end mark": (in_tar(SAMPLE, keep=2560), 3, ["a.tar"]),
    "a sample without a label": (in_tar([("0.jpg", jpeg())]), 3, ["a.tar", "0.jpg", "no .cls"]),
    "a sample without an image": (in_tar([("0.cls", b"0")]), 3, ["a.tar", "0.cls", "0 images"]),
    "a label that is no text": (
        in_tar([("0.jpg", jpeg()), ("0.cls", b"\xff\xfe")]),
        3,
        ["a.tar", "0.cls", "no label"],
    ),
    "JSON without a label": (
        in_tar([("0.jpg", jpeg()), ("0.json", b'{"x": 1}')]),
        3,
        ["0.json", "--label-column"],
    ),
    "a damaged image in a shard": (
        in_tar([("0.jpg", jpeg()[:-30]), ("0.cls", b"0")]),
        3,
        ["a.tar/0.jpg"],
    ),
    "shards that are missing": (
        lambda root: ["a-{000..002}.tar", "out"],
        2,
        ["a-001.tar", "3 shards"],
    ),
    "a .beton file that was not finished": (truncated_beton, 3, ["a.beton"]),
    "an output that exists": (existing, 2, ["out", "--overwrite"]),
    "an output that is something else": (not_a_dataset, 2, ["out", "meta.json"]),
    "an output that cannot be made": (below_a_file, 2, ["file/out", "cannot be made"]),
}


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_one_message_with_its_exit_code(main, tmp_path, monkeypatch, capsys, name):
    make, code, parts = CASES[name]
    monkeypatch.chdir(tmp_path)
    arguments = make(tmp_path)
    before = sorted(tmp_path.rglob("*"))

    assert main(arguments) == code

    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert message.count("\n") == 1
    assert "Traceback" not in message
    for part in parts:
        assert part in message
    assert sorted(tmp_path.rglob("*")) == before


def run(arguments, cwd, **options):
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments],
        capture_output=True,
        check=False,
        cwd=cwd,
        **options,
    )


def test_a_disk_that_fills_up_leaves_nothing_and_exits_with_3(tmp_path):
    tree(tmp_path / "src")

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))

    done = run(["src", "out"], tmp_path, preexec_fn=limit)

    assert done.returncode == 3
    assert b"out: cannot be written" in done.stderr
    assert b"Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["src"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_is_read_only_exits_with_2(main, tmp_path, capsys):
    tree(tmp_path / "src")
    (tmp_path / "locked").mkdir(mode=0o555)
    assert main([str(tmp_path / "src"), str(tmp_path / "locked/out")]) == 2
    assert "Permission denied" in capsys.readouterr().err


def test_names_in_any_script_or_none_are_kept_and_shown(main, tmp_path):
    names = ["蜂", "пчела", os.fsdecode(b"\xff\xfe")]
    for name in names:
        put(tmp_path / "src" / name, {"0.jpg": jpeg()})
    put(tmp_path / "src" / names[2], {"1.jpg": b"x"})
    plain = {**os.environ, "PYTHONIOENCODING": "ascii"}

    done = run(["src", "out"], tmp_path, env=plain)
    assert done.returncode == 3
    assert b"\\xff\\xfe/1.jpg" in done.stderr
    assert b"Traceback" not in done.stderr

    assert main([str(tmp_path / "src"), str(tmp_path / "out"), "--on-error", "skip"]) == 0
    meta = json.loads((tmp_path / "out/meta.json").read_text())
    assert meta["classes"] == sorted(names)
