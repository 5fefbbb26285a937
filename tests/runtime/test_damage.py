"""Damaged training images: replaced alike everywhere, listed once, never when measuring."""

import dataclasses
import gc
import os
import shutil

import numpy as np
import pytest
import torch

from fastssd.data.damage import Damage
from fastssd.data.decode.decoder import DecodeError
from fastssd.data.decode.torchvision_decoder import TorchvisionDecoder
from fastssd.data.draws import Draws
from fastssd.errors import DataError
from fastssd.evaluation.damaged_images import damage_file, read_damaged_images
from fastssd.runtime.build import build, prepare

DAMAGED = (3, 50)


@pytest.fixture
def forgets_mapped_files():
    """Leave no mapping that could not be read to the next test, which would be told of it."""
    yield
    gc.collect()


class FailingDecoder(TorchvisionDecoder):
    """Cannot decode images with these pixels."""

    def __init__(self, images):
        self.images = images

    def decode(self, images, boxes, size, *, out=None, turns=None):
        out = super().decode(images, boxes, size, out=out, turns=turns)
        damaged = {
            position: "is damaged"
            for position, image in enumerate(images)
            if any(np.array_equal(image.data, other) for other in self.images)
        }
        if damaged:
            raise DecodeError.of(damaged)
        return out


@pytest.fixture
def trouble(context):
    """Return what makes a context in which some images are damaged, and others replace them."""

    def make(*overrides, rank=0, num_processes=1, split="train", replaces=True):
        made = context(*overrides, rank=rank, num_processes=num_processes)
        storage = made.dataset.split(split).storage
        decoder = FailingDecoder([storage.read(sample).data for sample in DAMAGED])
        warnings = []
        damage = Damage(damage_file(made.output, rank), warn=warnings.append)
        made = dataclasses.replace(made, decoder=decoder, damage=damage if replaces else None)
        return made, warnings

    return make


def pixels_by_draw(batches):
    """Return the checksum of every draw of an epoch, and its label."""
    found = {}
    for batch in batches.epoch(0):
        for i, (sample, view) in enumerate(
            zip(batch.draws.samples.tolist(), batch.draws.views.tolist(), strict=True)
        ):
            found[sample, view] = (int(batch.checksums[i]), int(batch.labels[i]))
    return found


def test_processes_and_resumed_runs_replace_alike_and_list_each_image_once(trouble, stage_of):
    def epoch(**share):
        made, warnings = trouble("budgets.scratch.batch_size=8", **share)
        return pixels_by_draw(prepare(stage_of(made, "ssd.I"), made).batches), warnings, made

    whole, warnings, made = epoch()
    assert len(warnings) == len(DAMAGED)
    assert len(whole) > len(made.train) - 8
    for file in made.output.glob("damaged-images-*"):
        file.unlink()

    parts = [epoch(rank=rank, num_processes=2)[0] for rank in range(2)]
    assert parts[0] | parts[1] == whole
    again, later_warnings, _ = epoch(rank=0, num_processes=2)
    assert again == parts[0]
    assert later_warnings == []

    listed = read_damaged_images(made.output)
    assert [entry["sample"] for entry in listed] == list(DAMAGED)
    for entry in listed:
        labels = made.train.labels
        assert labels[entry["replaced_by"]] == labels[entry["sample"]]
        assert entry["file"] == made.train.describe(entry["sample"])


def test_a_draw_shows_the_same_replacement_to_teacher_and_student(trouble):
    made, _ = trouble()
    augmentation = made.augmentation("distill", seed=0)
    draws = Draws(np.array([DAMAGED[0], 7, DAMAGED[1]]), np.array([2, 0, 1]))

    in_table = made.fetch(made.train, augmentation, made.damage)(draws)
    in_training = made.fetch(made.train, augmentation, made.damage)(draws[np.array([2, 0])])

    assert torch.equal(in_table["pixels"][:, [2, 0]], in_training["pixels"])
    assert in_table["labels"].tolist() == made.train.labels[draws.samples].tolist()


def test_without_leave_to_replace_the_run_ends_naming_file_and_sample(trouble, stage_of):
    made, _ = trouble(replaces=False)
    batches = prepare(stage_of(made, "ssd.I"), made).batches

    with pytest.raises(DataError, match=rf"\(sample ({DAMAGED[0]}|{DAMAGED[1]}) of train\)"):
        pixels_by_draw(batches)


def test_images_that_are_measured_are_never_replaced(trouble, stage_of):
    made, warnings = trouble(split="test")
    method = build(stage_of(made, "ssd.I"), made)

    with pytest.raises(DataError, match=r"sample \d+ of test"):
        made.count(method, "test")
    assert warnings == []


def test_images_kept_on_the_device_make_the_same_epoch(context, stage_of):
    from fastssd.data.device_images import kept_on_device

    host = context()
    splits = [host.dataset.split(name) for name in ("train", "test")]
    images, line = kept_on_device(splits, host.workers.device, "always")
    kept = dataclasses.replace(host, device_images=images)
    assert line.startswith("images of train, test on the device: 0.00 GB")

    epochs = [prepare(stage_of(made, "ssd.I"), made).batches.epoch(0) for made in (host, kept)]

    for one, other in zip(*epochs, strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.checksums, other.checksums)
        assert torch.equal(one.labels, other.labels)


@pytest.mark.kernels
def test_a_dataset_that_is_cut_short_in_training_is_named_and_no_image_replaced(
    forgets_mapped_files, context, stage_of, digits, tmp_path
):
    shutil.copytree(digits, tmp_path / "data")
    made = context(f"data.path={tmp_path / 'data'}")
    warnings = []
    damage = Damage(damage_file(made.output, 0), warn=warnings.append)
    made = dataclasses.replace(made, damage=damage)
    batches = prepare(stage_of(made, "ssd.I"), made).batches.epoch(0)

    os.truncate(tmp_path / "data/train.images.npy", 128)

    with pytest.raises(DataError, match=r"train\.images\.npy: it was cut short"):
        list(batches)
    assert warnings == []
