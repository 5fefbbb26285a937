"""Which folder or shard is which split, what is an image of it, and what is asked."""

import os
import socket

import pytest

from fastssd.data.sources import file_tree
from fastssd.data.sources.source import SourceOptions
from fastssd.data.sources.sources import find_kind, open_source
from fastssd.data.sources.split_names import parse_split_names
from fastssd.errors import ConfigError, DataError


def make(root, paths):
    """Make files, ``LINK -> TARGET`` links, and folders, which end with a slash."""
    for path in paths:
        name, _, target = path.partition(" -> ")
        place = root / name.rstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        if target:
            place.symlink_to(target)
        elif name.endswith("/"):
            place.mkdir(exist_ok=True)
        else:
            place.touch()
    return root


def classes(folder, *names):
    """Two images in each class folder."""
    return [f"{folder}{name}/{i}.jpg" for name in names or ("ant", "bee") for i in range(2)]


def opened(root, *names, kind="folder"):
    options = SourceOptions(split_names=parse_split_names(names) if names else None)
    return open_source(str(root), kind=kind, options=options)


def counts(source):
    return {split: len(part.labels) for split, part in source.splits.items()}


def notes(source):
    return "\n".join(source.notes)


@pytest.mark.parametrize(
    ("parts", "splits"),
    [
        (["Training", "Testing"], ["train", "test"]),
        (["Train", "Val", "Test"], ["train", "val", "test"]),
        (["TRAIN", "valid"], ["train", "val"]),
        (["train", "validation", "testing"], ["train", "val", "test"]),
        (["train", "dev"], ["train", "val"]),
    ],
)
def test_usual_names_of_splits_are_known_in_any_case_and_said(tmp_path, parts, splits):
    make(tmp_path, [path for part in parts for path in classes(f"{part}/")])

    source = opened(tmp_path)

    assert find_kind(str(tmp_path)) == "folder"
    assert counts(source) == dict.fromkeys(splits, 4)
    assert source.classes == ["ant", "bee"]
    for part, split in zip(parts, splits, strict=True):
        assert source.taken_from[split] == f"{part}/"
        assert (f"{part} is taken as the {split} split" in notes(source)) == (part != split)


# a layout of two readings: its paths, what the question names, the answer, and what it gives
QUESTIONS = {
    "splits of other names": (
        classes("set a/") + classes("set b/"),
        "hold no images themselves",
        ["train=set a", "test=set b"],
        {"train": 4, "test": 4},
    ),
    "names with a year": (
        classes("train2017/") + classes("val2017/"),
        "train2017, val2017",
        ["train=train2017,val=val2017"],
        {"train": 4, "val": 4},
    ),
    "names with fillers, and no class folders": (
        ["train_images/0.jpg", "test_images/0.jpg"],
        "could be classes or splits",
        ["train=."],
        {"train": 2},
    ),
    "a class that is called train": (
        classes("", "bus", "train"),
        "could be classes or splits",
        ["train=."],
        {"train": 4},
    ),
    "two names of one split": (
        classes("train/") + classes("val/") + classes("valid/"),
        "'val', 'valid' could each be the val split",
        ["train=train", "val=valid"],
        {"train": 4, "val": 4},
    ),
    "train beside trainval": (
        classes("train/") + classes("trainval/"),
        "'trainval'",
        ["train=trainval"],
        {"train": 4},
    ),
    "a test split alone": (
        classes("test/") + classes("first/"),
        "has test but no train",
        ["train=first", "test=test"],
        {"train": 4, "test": 4},
    ),
    "another folder with the same classes": (
        classes("train/") + classes("blurred/"),
        "blurred holds class folders too",
        ["train=train", "test=blurred"],
        {"train": 4, "test": 4},
    ),
    "one level too many": (
        classes("photos/train/") + classes("photos/test/"),
        "such as photos/test/ant/0.jpg",
        ["train=photos/train", "test=photos/test"],
        {"train": 4, "test": 4},
    ),
    "one level too many within a split": (
        classes("train/photos/"),
        "holds one folder, photos",
        ["train=train/photos"],
        {"train": 4},
    ),
    "classes of classes": (
        classes("insects/") + classes("mammals/", "cat", "dog"),
        "hold no images themselves",
        ["train=."],
        {"train": 8},
    ),
    "a split within the classes": (
        [*classes(""), *classes("val_set/")],
        "val_set",
        ["train=.", "val=val_set"],
        {"train": 4, "val": 4},
    ),
}


@pytest.mark.parametrize("name", QUESTIONS)
def test_a_layout_of_two_readings_is_asked_about_and_split_names_answers(tmp_path, name):
    paths, question, answer, expected = QUESTIONS[name]
    make(tmp_path / "src", paths)

    with pytest.raises(ConfigError) as error:
        opened(tmp_path / "src")

    assert question in str(error.value)
    assert "--split-names train=" in str(error.value)
    assert counts(opened(tmp_path / "src", *answer)) == expected


@pytest.mark.parametrize(
    "names",
    [["test=b"], ["train"], ["train="], ["train=a", "train=b"], ["train=a,test=a"], ["x=a"]],
)
def test_split_names_that_say_nothing_sound_are_refused(names):
    with pytest.raises(ValueError, match="="):
        parse_split_names(names)


def test_a_split_name_may_hold_commas():
    assert parse_split_names(["train=a, b,test=c=d"]) == {"train": "a, b", "test": "c=d"}


@pytest.mark.parametrize("name", ["gone", "../other", "/etc"])
def test_a_wanted_folder_that_is_not_in_the_source_is_refused(tmp_path, name):
    make(tmp_path, [*classes("src/a/"), *classes("other/")])
    with pytest.raises(ConfigError, match=f"--split-names train={name}"):
        opened(tmp_path / "src", f"train={name}")


def test_classes_that_sound_like_splits_but_are_not_called_so_are_classes(tmp_path):
    names = ["bullet_train", "interval", "latest", "test tube", "train station"]
    source = opened(make(tmp_path, classes("", *names)))
    assert (source.classes, counts(source)) == (names, {"train": 10})


def test_what_is_no_image_of_a_class_is_left_out_and_listed_by_kind(tmp_path):
    make(
        tmp_path,
        [
            *classes("train/"),
            "train/ant/more/9.JPEG",
            *["train/ant/.0.jpg", "train/.ipynb_checkpoints/0.jpg", ".cache/"],
            *["train/ant/@eaDir/0.jpg", "train/Thumbs.db", "train/__MACOSX/0.jpg"],
            *["train/ant/readme.txt", "labels.csv", "train/loose.jpg", "extra/0.jpg"],
            *["train/bee/gone -> /nowhere", "train/bee/gone.jpg -> /nowhere/0.jpg"],
        ],
    )
    os.mkfifo(tmp_path / "train/ant/pipe.jpg")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "train/ant/s"))
        make(tmp_path, ["train/ant/to.jpg -> pipe.jpg", "train/ant/null.jpg -> /dev/null"])
        source = opened(tmp_path)

    assert source.splits["train"].names == [
        *["train/ant/0.jpg", "train/ant/1.jpg", "train/ant/more/9.JPEG"],
        *["train/bee/0.jpg", "train/bee/1.jpg"],
        "train/bee/gone.jpg",  # damage, for whoever reads it
    ]
    for line in (
        "1 train images lie in folders within the folders of 1 classes",
        "hidden files and folders: 3 (.cache, train/.ipynb_checkpoints, train/ant/.0.jpg)",
        "thumbnails, trash and other things of programs: 3 (train/Thumbs.db, ",
        "not named like images: 1 (train/ant/readme.txt)",
        "files in no class folder: 2 (labels.csv, train/loose.jpg)",
        "never opened: 4 (train/ant/pipe.jpg, train/ant/s, ",
        "parts that are no split: 1 (extra)",
        "links that lead nowhere: 1 (train/bee/gone)",
    ):
        assert line in notes(source)


@pytest.mark.parametrize(
    ("links", "num_images", "said"),
    [
        (["ant/loop -> ."], 4, "listed already: 1 (ant/loop)"),
        (["ant/loop -> .", "ant/again -> ."], 4, "listed already: 2"),
        (["ant/up -> .."], 4, "listed already: 1 (ant/up)"),
        (["ant/x/y/up -> ../.."], 4, "listed already: 1 (ant/x/y/up)"),
        (["ant/sub/3.jpg", "ant/a -> sub"], 5, "listed already: 1 (ant/a)"),
        (["ant/9.jpg -> 0.jpg"], 4, "listed already: 1 (ant/9.jpg)"),
        (["cat/9.jpg", "cat/o -> ../../out"], 7, "SOURCE: cat/o -> "),
        (["cat -> ../out", "bee/x -> y", "bee/y -> x"], 6, "cat -> "),
        (["ant/9.jpg -> ../../out/0.jpg", "ant/8.jpg -> 9.jpg"], 5, "lead out of SOURCE"),
        (["ant/o -> ../../out", "../out/o -> ../out", "../out/p -> ."], 6, "listed already: 2"),
    ],
)
def test_links_are_followed_but_no_image_is_taken_twice(tmp_path, links, num_images, said):
    make(tmp_path, ["out/0.jpg", "out/1.jpg"])
    source = opened(make(tmp_path / "src", [*classes(""), *links]))

    assert counts(source) == {"train": num_images}
    assert said in notes(source)


@pytest.mark.parametrize(
    "links",
    [
        ["cat -> ant"],
        ["bee/more -> ../ant"],
        ["ant/x.jpg -> ../bee/0.jpg"],
        ["ant/o -> ../../out", "bee/o -> ../../out"],
        ["ant/o.jpg -> ../../out/0.jpg", "bee/o.jpg -> ../../out/0.jpg"],
        ["ant/o.jpg -> ../../out/0.jpg", "bee/o -> ../../out"],
        ["ant/all -> ../../src2", "../src2/x -> ../src/bee"],
    ],
)
def test_an_image_of_two_classes_by_links_is_refused(tmp_path, links):
    make(tmp_path, ["out/0.jpg"])
    make(tmp_path / "src", [*classes(""), *links])
    with pytest.raises(DataError, match=r"would be of the class .* one label"):
        opened(tmp_path / "src")


@pytest.mark.parametrize("link", ["test -> train", "test/ant -> ../train/ant", "test/ant/x.jpg"])
def test_an_image_in_two_splits_by_links_is_kept_in_both_and_said(tmp_path, link):
    link += "" if "->" in link else " -> ../../train/ant/0.jpg"
    source = opened(make(tmp_path, [*classes("train/"), link]))
    assert "by links, train and test share" in notes(source)


def test_a_folder_or_link_that_cannot_be_followed_to_a_class_is_an_error(tmp_path, monkeypatch):
    make(tmp_path, [*classes(""), "cat -> /nowhere"])
    with pytest.raises(DataError, match=r"cat: is a link that leads nowhere"):
        opened(tmp_path)
    (tmp_path / "cat").unlink()

    scandir = os.scandir

    def locked(folder):
        if str(folder).endswith("bee"):
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr(file_tree.os, "scandir", locked)
    with pytest.raises(DataError, match=r"bee: cannot be listed: Permission denied"):
        opened(tmp_path)


def test_every_folder_is_listed_once_and_nothing_is_asked_of_a_file(tmp_path, monkeypatch):
    make(tmp_path, [f"train/c{c}/{i}.jpg" for c in range(20) for i in range(20)])
    calls = {"scandir": [], "stat": [], "lstat": []}

    def counting(name):
        real = getattr(os, name)

        def call(path, *arguments, **options):
            calls[name].append(str(path))
            return real(path, *arguments, **options)

        return call

    for name in calls:
        monkeypatch.setattr(os, name, counting(name))

    tree = file_tree.SplitTree(tmp_path, "train", file_tree.LeftOut())
    tree.list_images(sorted(tree.folders))

    assert len(calls["scandir"]) == len(set(calls["scandir"])) == 21
    assert not [path for name in ("stat", "lstat") for path in calls[name] if ".jpg" in path]


def test_a_part_without_images_is_an_error_and_one_that_lacks_classes_is_said(tmp_path):
    make(tmp_path, [*classes("train/", "ant", "bee", "cat"), "val/"])
    with pytest.raises(DataError, match=r"its val part \(val/\) holds no images"):
        opened(tmp_path)
    assert counts(opened(tmp_path, "train=train")) == {"train": 6}

    make(tmp_path, classes("val/", "bee"))
    assert "2 of 3 classes have no val image: ant, cat" in notes(opened(tmp_path))


def test_a_part_of_images_without_class_folders_is_an_error(tmp_path):
    make(tmp_path, [*classes("train/"), "val/0.jpg", "val/1.jpg"])
    with pytest.raises(DataError, match="val: holds 2 images but no class folders"):
        opened(tmp_path)


def test_classes_that_differ_in_case_or_blanks_alone_are_said(tmp_path):
    source = opened(make(tmp_path, classes("", "Ant", "ant ", "bee")))
    assert "1 classes are called like another but for case or blanks, such as 'Ant'" in notes(
        source
    )
