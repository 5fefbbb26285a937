"""Two hundred damaged files: each is named with the contract's exit code, or made good."""

import json
import random
import shutil
import sys
import warnings

import numpy as np
import pytest
import torch
from pretend_processes import together
from torch import nn

from fastssd.core.files import seal
from fastssd.data.convert import convert
from fastssd.data.dataset import open_dataset
from fastssd.data.identity import DatasetIdentity
from fastssd.data.sources.sources import open_source
from fastssd.errors import FastssdError
from fastssd.evaluation.results import read_stage
from fastssd.recipe_file import load_recipe, to_yaml
from fastssd.runtime.record import StageRecord, read_record, write_record
from fastssd.tables.manifest import MANIFEST, read_manifest, write_manifest
from fastssd.tables.table import table_files
from fastssd.training.checkpoints import load_weights, save_weights
from fastssd.training.resume import CHECKPOINT, Progress, Resume

NUM_FILES = 200
RUNS_SOMETHING = ("os.system", "os.exec", "os.spawn", "os.posix_spawn", "subprocess.Popen")
ran: list[str] = []
sys.addaudithook(lambda event, arguments: ran.append(event) if event in RUNS_SOMETHING else None)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, arguments):
    """A dataset in each format, a stage's checkpoints, weights and result, a table, a config."""
    root = tmp_path_factory.mktemp("whole")
    for format in ("memory", "ffcv", "webdataset"):
        convert(open_source("digits"), root / format, format=format, max_per_class=4)
    stage, optimizer, resume = a_stage(root)
    resume.load(stage=stage, optimizer=optimizer)
    for step in (1, 2):
        resume.save(Progress(step=step), stage=stage, optimizer=optimizer, window={})
    for name in ("weights", "best"):
        save_weights(root / f"ssd-I/{name}.safetensors", stage)
    result = {
        "folder": "ssd-I",
        "rows": [],
        "seconds": {"train": 1.0},
        "images": 10,
        "images_per_second": 10.0,
        "data_wait_percent": 1.0,
        "epochs": 1,
        "train_counts": [3, 4],
    }
    (root / "ssd-I/result.json").write_text(seal(result))
    dataset = DatasetIdentity(format="memory", classes=("a", "b"), splits={})
    record = StageRecord(recipe={"run": {"seed": 0}}, dataset=dataset, weights={"ce": "12"})
    write_record(root / "ssd-I", record)
    a_table(root / "table")
    (root / "config.yaml").write_text(to_yaml(load_recipe(*split(arguments(root / "run")))))
    return root


def split(arguments):
    return arguments[0], arguments[1:]


def a_stage(root):
    torch.manual_seed(0)
    stage = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    optimizer = torch.optim.SGD(stage.parameters(), lr=0.1, momentum=0.9)
    folder = root / "ssd-I"
    folder.mkdir(exist_ok=True)
    warned = []
    process = together(1, lambda process: process)[0]
    resume = Resume(
        folder, recipe="r", accelerator=process, exchange=process.exchange, warn=warned.append
    )
    resume.warned = warned
    return stage, optimizer, resume


def a_table(directory):
    manifest = {
        "num_rows": 50,
        "block_rows": 8,
        "columns": {"logits": ["float16", 6]},
        "versions": {"torch": "0"},
    }
    directory.mkdir()
    files = table_files(directory, manifest)
    files.create()
    values = np.random.default_rng(0).normal(size=(50, 6)).astype(np.float16)
    sums = [
        files.write(block, {"logits": values[files.rows(block).start : files.rows(block).stop]})
        for block in range(files.num_blocks)
    ]
    checksums = {"logits": [each["logits"] for each in sums]}
    write_manifest(directory / MANIFEST, {**manifest, "checksums": checksums})


# What notices a damaged file: each raises an error for a person, or returns what was made good.


def open_all(root, path):
    dataset = open_dataset(path.parent)
    for name in dataset.splits:
        split = dataset.split(name)
        split.storage.read_batch(np.arange(len(split)))


def resumed(root, path):
    stage, optimizer, resume = a_stage(root)
    progress, _ = resume.load(stage=stage, optimizer=optimizer)
    assert str(path) in " ".join(resume.warned)
    return f"went on from step {progress.step}" if progress.step == 1 else None


def weights_loaded(root, path):
    load_weights(path, a_stage(root)[0])


def result_read(root, path):
    read_stage(path)


def record_read(root, path):
    read_record(path.parent)


def table_checked(root, path):
    manifest = read_manifest(root / "table" / MANIFEST)
    files = table_files(root / "table", manifest)
    damaged = files.problem() or "".join(
        files.damaged(block, {"logits": manifest["checksums"]["logits"][block]})
        for block in range(files.num_blocks)
    )
    return damaged if "logits.npy" in damaged else None  # these rows are made again


def config_compared(root, path):
    recipe = load_recipe(path)
    if to_yaml(recipe) == config_compared.before:
        return "says the same"  # as does a changed quote or space
    return "holds a run with other settings"  # which run_directory refuses


READERS = {
    "ssd-I/checkpoint.safetensors": resumed,
    "ssd-I/weights.safetensors": weights_loaded,
    "ssd-I/best.safetensors": weights_loaded,
    "ssd-I/result.json": result_read,
    "ssd-I/stage.json": record_read,
    "table/manifest.json": table_checked,
    "table/logits.npy": table_checked,
    "memory/meta.json": open_all,
    "memory/train.images.npy": open_all,
    "memory/train.labels.npy": open_all,
    "ffcv/meta.json": open_all,
    "ffcv/train.beton": open_all,
    "webdataset/train-000000.tar": open_all,
    "webdataset/train.index.npy": open_all,
    "webdataset/test.names.jsonl": open_all,
    "config.yaml": config_compared,
}


def mutate(content, numbers, others):
    """Return damaged content and how: bits, bytes, an end, a hole, types, another file's."""
    kind = numbers.choice(
        ["bit", "bits", "cut", "longer", "zeros", "swapped", "type", "bare", "empty"]
    )
    changed = bytearray(content)
    if kind in ("bit", "bits"):
        for _ in range(1 if kind == "bit" else 20):
            changed[numbers.randrange(len(changed))] ^= 1 << numbers.randrange(8)
    elif kind == "cut":
        del changed[numbers.randrange(len(changed)) :]
    elif kind == "longer":
        changed += bytes(numbers.randrange(256) for _ in range(numbers.randrange(1, 99)))
    elif kind == "zeros":
        start = numbers.randrange(len(changed))
        changed[start : start + 64] = bytes(len(changed[start : start + 64]))
    elif kind == "swapped":
        changed = bytearray(numbers.choice(others).read_bytes())
    elif kind in ("type", "bare"):
        try:
            tree = json.loads(content)
        except ValueError:
            changed = bytearray(b"{}")
        else:
            if kind == "bare":  # a hand that removes the checksum may say what it likes
                tree.pop("sha256", None)
            tree[numbers.choice(list(tree))] = numbers.choice([None, 3, "text", [], {}, [[1], 2]])
            changed = bytearray(json.dumps(tree).encode())
    else:
        changed.clear()
    return kind, bytes(changed)


def read(reader, root, path):
    """Return the error for a person that a reader raises, or what it made good."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return reader(root, path)
    except FastssdError as error:
        return error


@pytest.mark.parametrize("name", READERS)
def test_no_damaged_file_is_taken_for_a_good_one(whole, tmp_path, name):
    root = tmp_path / "copy"
    shutil.copytree(whole, root)
    path = root / name
    content = path.read_bytes()
    config_compared.before = to_yaml(load_recipe(root / "config.yaml"))
    others = [root / other for other in READERS if other != name]
    numbers = random.Random(name)
    del ran[:]
    tried, accepted = 0, []
    while tried < -(-NUM_FILES // len(READERS)):
        kind, changed = mutate(content, numbers, others)
        if changed == content:
            continue
        tried += 1
        path.write_bytes(changed)
        outcome = read(READERS[name], root, path)
        if outcome is None and kind != "bare":
            accepted.append((kind, tried))
        elif isinstance(outcome, FastssdError):
            # Of two files that contradict each other the other one may be named.
            assert str(root) in str(outcome), (kind, outcome)
            assert outcome.exit_code in (2, 3)
        path.write_bytes(content)
        if name.endswith(CHECKPOINT):  # it was moved out of the way
            shutil.rmtree(root / "ssd-I")
            shutil.copytree(whole / "ssd-I", root / "ssd-I")
    assert not accepted
    assert not ran
