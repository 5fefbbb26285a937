"""Small sources, good and bad, for the tests of the conversion's command line."""

import io
import json
import os
import pickle
import tarfile

import numpy as np
from PIL import Image


def jpeg(seed=0, size=12):
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


def put(root, files):
    """Write files of text or bytes and return the root."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


def tree(root, **changes):
    """Two classes of three JPEG files, with changed or added files; None leaves one out."""
    files = {f"{name}/{i}.jpg": jpeg(i) for name in ("ant", "bee") for i in range(3)}
    files.update({name.replace("__", "/"): content for name, content in changes.items()})
    return put(root, {name: c for name, c in files.items() if c is not None})


def listed(root, text, name="a.txt"):
    tree(root / "images")
    return put(root, {name: text})


def tar(root, members, name="a.tar"):
    with tarfile.open(root / name, "w") as file:
        for member_name, content in members:
            member = tarfile.TarInfo(member_name)
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))


def in_tree(changes, *arguments):
    """A case with a tree of images."""

    def make(root):
        tree(root / "src")
        put(root / "src", changes)
        return ["src", "out", *arguments]

    return make


def in_list(text, *arguments, name="a.txt", pipe=None, links=()):
    """A case with a list of images, a pipe, and images that lead elsewhere; None: to no end."""

    def make(root):
        listed(root, text, name)
        if pipe is not None:
            os.mkfifo(root / pipe)
        for image in links:
            path = root / "images" / image
            if links[image] is not None:
                path.symlink_to(links[image])
                continue
            path.touch()
            os.truncate(path, 8 << 40)
        return [name, "out", "--root", "images", *arguments]

    return make


def in_json(change, *arguments):
    """A case with an iNaturalist file."""

    def make(root):
        tree(root / "images")
        content = {
            "images": [
                {"id": i, "file_name": f"{'ant' if i < 2 else 'bee'}/{i % 2}.jpg"} for i in range(4)
            ],
            "annotations": [{"image_id": i, "category_id": i // 2} for i in range(4)],
            "categories": [{"id": 0, "name": "ant"}, {"id": 1, "name": "bee"}],
        }
        change(content)
        put(root, {"train2018.json": json.dumps(content)})
        return ["train2018.json", "out", "--root", "images", *arguments]

    return make


def in_tar(members, *arguments, keep=None):
    """A case with a shard."""

    def make(root):
        tar(root, members)
        content = (root / "a.tar").read_bytes()
        (root / "a.tar").write_bytes(content[:keep])
        return ["a.tar", "out", *arguments]

    return make


def in_cifar(**changes):
    """A case with the python files of CIFAR-100, made small."""

    def make(root):
        files = {
            name: {"data": np.zeros((200, 3072), np.uint8), "fine_labels": [*range(100)] * 2}
            for name in ("train", "test")
        }
        files["meta"] = {"fine_label_names": [f"c{i}" for i in range(100)]}
        for name, change in changes.items():
            change(files, name)
        put(root / "src", {name: pickle.dumps(value, 2) for name, value in files.items()})
        return ["src", "out"]

    return make


def entry(key, value):
    """A change to one entry of a made CIFAR file."""

    def change(files, name):
        files[name][key] = value

    return change


def existing(root):
    tree(root / "src")
    (root / "out").mkdir()
    return ["src", "out"]


def below_a_file(root):
    tree(root / "src")
    put(root, {"file": "x"})
    return ["src", "file/out"]


def not_a_dataset(root):
    tree(root / "src")
    put(root, {"out/precious.txt": "x"})
    return ["src", "out", "--overwrite"]


def truncated_beton(root):
    put(root, {"a.beton": bytes(5000)})
    return ["a.beton", "out"]


def empty_class(root):
    tree(root / "src")
    (root / "src/yak").mkdir()
    return ["src", "out"]


def empty_part(root):
    tree(root / "src/train")
    (root / "src/val").mkdir()
    return ["src", "out"]


def linked_class(root):
    tree(root / "src")
    (root / "src/yak").symlink_to("ant")
    return ["src", "out"]


def piped(root):
    listed(root, "ant/0.jpg 0\nbee/0.jpg 1\nant/pipe.jpg 0\n")
    os.mkfifo(root / "images/ant/pipe.jpg")
    return ["a.txt", "out", "--root", "images", "--on-error", "skip"]


def unknown_test_class(root):
    tree(root / "src/train")
    put(root / "src/test/yak", {"0.jpg": jpeg()})
    return ["src", "out"]


def skipped_class(root):
    tree(root / "src")
    put(root / "src", {f"bee/{i}.jpg": b"" for i in range(3)})
    return ["src", "out", "--on-error", "skip"]


def skipped_part(root):
    tree(root / "src/train")
    put(root / "src/val", {"ant/0.jpg": b"", "bee/0.jpg": b""})
    return ["src", "out", "--on-error", "skip"]


def remade(**changes):
    return lambda content: content.update(changes)
