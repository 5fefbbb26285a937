"""Photographs of any folder: what is taken and what left out, and how crops of them are checked."""

import io
import os

import numpy as np
import photographs as module
import pytest
import torch
from crop_check import require_plausible, samples_to_look_at
from photographs import (
    CMYK,
    DAMAGED,
    GREYSCALE,
    LONGEST_SIDE,
    TOO_LARGE,
    Photograph,
    photographs,
    summary,
    too_large_for_ffcv,
)
from PIL import Image
from store import make_dataset, make_large_dataset
from torchvision.transforms import RandomResizedCrop

from fastssd.data.decode.torchvision_decoder import decode_pixels
from fastssd.data.jpeg_header import read_frame


def picture(height=60, width=80, seed=0):
    """Smooth random pixels, (height, width, 3)."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 8, 3)).astype(np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def encoded(pixels, kind="JPEG", mode="RGB", **options):
    buffer = io.BytesIO()
    options = {"quality": 95} | options if kind in ("JPEG", "MPO") else options
    Image.fromarray(pixels).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def tagged(pixels, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(pixels, exif=exif)


def of_width(folder, width, mode="RGB"):
    """Write a file that is known by its width and whose name sorts so."""
    (folder / f"{width:04d}.jpg").write_bytes(encoded(picture(16, width), mode=mode))


def widths(found):
    return sorted(each.width for each in found)


@pytest.fixture
def folder(tmp_path):
    """Three sound images, a folder with a file's name, and what cannot be taken."""
    root = tmp_path / "images"
    (root / "deep" / "er").mkdir(parents=True)
    jpeg, png = encoded(picture()), encoded(picture(), "PNG")
    middle = len(jpeg) // 2
    files = {
        b"deep/er/SOUND.JPEG": jpeg,
        b"sound.png": png,
        b"not \xff UTF-8.jpg": jpeg,
        b"truncated.jpg": jpeg[:-200],
        b"middle.jpg": jpeg[:middle] + b"\xff\xd9" * 50 + jpeg[middle + 100 :],
        b"truncated.png": png[: len(png) // 2],
        b"text.jpg": b"no image",
        b"empty.jpg": b"",
        b"grey.jpg": encoded(picture(), mode="L"),
        b"cmyk.jpg": encoded(picture(), mode="CMYK"),
        b"no image.txt": b"nor one that looks so",
    }
    for name, content in files.items():
        with open(os.path.join(os.fsencode(root), name), "wb") as file:  # noqa: PTH118, PTH123
            file.write(content)
    (root / "folder.jpg").mkdir()
    (root / "broken.jpg").symlink_to(root / "nowhere.jpg")
    return root


@pytest.mark.kernels
def test_what_cannot_be_taken_is_left_out_and_counted(folder, tmp_path):
    found = photographs(folder)

    assert len(found) == 3
    assert found.left_out == {DAMAGED: 5, GREYSCALE: 1, CMYK: 1}
    described = summary(found)
    assert described["left_out"] == dict(found.left_out)
    assert described["encoded"] == 1
    assert len(make_dataset(tmp_path / "dataset", found)) == 3


def test_a_folder_of_which_nothing_remains_says_why(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"no image")
    of_width(tmp_path, 20, mode="L")

    with pytest.raises(SystemExit, match=r"no photographs; left out: 1 \w+, 1 \w+") as stop:
        photographs(tmp_path)
    assert DAMAGED in str(stop.value)
    assert GREYSCALE in str(stop.value)


def test_nothing_is_said_of_what_was_not_left_out(tmp_path):
    of_width(tmp_path, 20)

    assert not {"left_out", "turned", "encoded"} & set(summary(photographs(tmp_path)))


def test_as_many_are_taken_as_asked_for_where_others_cannot_be(tmp_path):
    for number in range(40):
        of_width(tmp_path, 20 + number, mode="L" if number % 2 else "RGB")

    found = photographs(tmp_path, count=15)

    assert len(found) == len(set(widths(found))) == 15
    assert found.left_out[GREYSCALE] > 0


def test_those_taken_lie_evenly_and_are_the_same_each_time(tmp_path):
    for number in range(60):
        of_width(tmp_path, 20 + number)

    found = widths(photographs(tmp_path, count=12))

    gaps = np.diff([20, *found, 80])
    assert gaps.max() <= 2 * 60 / 12
    assert found == widths(photographs(tmp_path, count=12))
    assert len(photographs(tmp_path, count=100)) == 60


def test_the_pixels_of_all_are_bounded_and_the_photographs_still_lie_evenly(tmp_path, monkeypatch):
    for number in range(60):
        of_width(tmp_path, 20 + number)
    monkeypatch.setattr(module, "MOST_PIXELS", 12 * 50 * 16)

    found = widths(photographs(tmp_path, count=60))

    assert 10 <= len(found) <= 14
    assert np.diff([20, *found, 80]).max() <= 2 * 60 / 10


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_very_large_photograph_is_left_out(tmp_path, kind):
    for width in (LONGEST_SIDE, LONGEST_SIDE + 1):
        content = encoded(picture(2, width), kind)
        (tmp_path / f"{width}.{kind}").write_bytes(content)

    found = photographs(tmp_path)

    assert widths(found) == [LONGEST_SIDE]
    assert found.left_out == {TOO_LARGE: 1}


def test_very_large_photographs_are_taken_where_there_are_no_others(tmp_path):
    (tmp_path / "large.jpg").write_bytes(encoded(picture(2, LONGEST_SIDE + 1), "JPEG"))
    (tmp_path / "damaged.jpg").write_bytes(b"nothing")

    found = photographs(tmp_path)

    assert widths(found) == [LONGEST_SIDE + 1]
    assert found.left_out == {DAMAGED: 1}


def test_ffcv_gets_half_of_the_free_memory_at_most(monkeypatch):
    found = [Photograph(b"", "4:2:0", width, height) for width, height in ((400, 30), (30, 500))]
    needed = 5 * 256 * 3 * 400 * 500  # the greatest height times the greatest width
    monkeypatch.setattr(module, "free_bytes", lambda: 2 * needed)

    assert too_large_for_ffcv(found, 256) == ""
    assert "257 photographs a batch" in too_large_for_ffcv(found, 257)
    assert too_large_for_ffcv(found, 256, limit=needed - 1)
    assert too_large_for_ffcv(found, 256, limit=needed) == ""


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_photograph_is_the_same_to_all_as_it_lies(tmp_path, orientation):
    pixels = picture()
    (tmp_path / "a.jpg").write_bytes(tagged(pixels, orientation))

    (photograph,) = found = photographs(tmp_path)

    assert summary(found).get("turned", 0) == (orientation > 1)
    assert read_frame(photograph.content).orientation == 1
    assert not dict(Image.open(io.BytesIO(photograph.content)).getexif()) or orientation == 1
    assert np.abs(photograph.pixels() - pixels.astype(int)).mean() < 4
    split = make_dataset(tmp_path / "dataset", found)
    assert split.sizes.tolist() == [[60, 80]]
    assert np.abs(decode_pixels(split.storage.read(0)) - pixels.astype(int)).mean() < 4


def test_of_16_bits_the_upper_8_are_taken(tmp_path):
    values = np.linspace(0, 65_535, 4000).reshape(50, 80).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")

    (photograph,) = photographs(tmp_path)

    assert np.abs(photograph.pixels() - (values >> 8)[..., None].astype(int)).max() < 8


def test_a_file_of_several_pictures_is_its_first_byte_by_byte(tmp_path):
    second = Image.fromarray(picture(seed=1))
    content = encoded(picture(), "MPO", save_all=True, append_images=[second], subsampling="4:2:2")
    (tmp_path / "a.jpg").write_bytes(content)

    (photograph,) = found = photographs(tmp_path)

    assert photograph.content == content
    assert (photograph.subsampling, photograph.change) == ("4:2:2", "")
    split = make_dataset(tmp_path / "dataset", found)
    assert np.array_equal(decode_pixels(split.storage.read(0)), photograph.pixels())


def test_a_large_dataset_has_the_photographs_in_turns(tmp_path):
    found = photographs(None, count=2)

    split = make_large_dataset(tmp_path / "large", found, 5)

    stored = [split.storage.read(sample).data.tobytes() for sample in range(5)]
    small = make_dataset(tmp_path / "small", found).storage
    assert stored[:2] == [small.read(sample).data.tobytes() for sample in range(2)]
    assert stored == [stored[number % 2] for number in range(5)]


def taken(*images):
    """Photographs of these pixels."""
    return [
        Photograph(encoded(pixels), "4:2:0", pixels.shape[1], pixels.shape[0]) for pixels in images
    ]


def crops(found, samples):
    """Batches of what a loader gives, but smaller, by torchvision's choice of boxes."""
    torch.manual_seed(0)
    for start in range(0, len(samples), 16):
        part = samples[start : start + 16]
        batch = np.empty((len(part), 8, 8, 3), np.uint8)
        for row, sample in enumerate(part):
            image = Image.open(io.BytesIO(found[sample].content))
            y, x, height, width = RandomResizedCrop.get_params(image, [0.08, 1], [3 / 4, 4 / 3])
            crop = image.crop((x, y, x + width, y + height))
            batch[row] = np.asarray(crop.resize((8, 8), Image.Resampling.BOX))
        yield batch, part


def colour(*levels):
    return np.full((40, 60, 3), levels, np.uint8)


def bordered():
    """A dark thing before white: its crops are much darker than it is on average."""
    pixels = np.full((60, 60, 3), 255, np.uint8)
    pixels[15:45, 15:45] = picture(30, 30)[..., :1] // 4
    return pixels


@pytest.mark.parametrize(
    "images",
    [
        [picture()],
        [np.repeat(picture()[..., :1], 3, axis=2)],
        [colour(200, 200, 200), colour(200, 200, 200)],
        [bordered()],
        [picture(seed=seed) for seed in range(3)],
        [picture(seed=seed) for seed in range(80)],
        [picture(1, 1)],
    ],
    ids=["one", "one grey", "of one colour", "with a border", "three", "many", "a pixel"],
)
def test_right_crops_of_any_photographs_are_plausible(images):
    found = taken(*images)

    require_plausible("a peer", crops(found, samples_to_look_at(found, 16)), found)


@pytest.mark.parametrize(
    ("images", "others"),
    [
        ([colour(90, 90, 90)], [colour(120, 120, 120)]),
        ([colour(200, 30, 30)], [colour(30, 30, 200)]),
        ([picture(seed=seed) for seed in range(80)], [picture(seed=80 - s) for s in range(80)]),
    ],
    ids=["grey", "colours", "many"],
)
def test_crops_of_other_photographs_are_refused(images, others):
    found = taken(*images)
    batches = crops(taken(*others), samples_to_look_at(found, 16))

    with pytest.raises(SystemExit, match="a peer: its crops' colours"):
        require_plausible("a peer", batches, found)


def test_a_photograph_is_decoded_once_for_all_peers(monkeypatch):
    found = taken(picture(seed=1001), picture(seed=1002))
    batches = list(crops(found, np.arange(64) % 2))
    decoded = []
    pixels = Photograph.pixels
    monkeypatch.setattr(Photograph, "pixels", lambda self: decoded.append(self) or pixels(self))

    for peer in ("one", "another"):
        require_plausible(peer, iter(batches), found)

    assert len(decoded) == 2


def test_large_photographs_are_looked_at_less():
    small = [Photograph(b"", "4:2:0", 500, 400)] * 1000
    large = [Photograph(b"", "4:2:0", 4000, 3000)] * 41

    assert len(samples_to_look_at(small, 64)) == 512
    assert len(samples_to_look_at(large, 64)) == 64
    assert len(samples_to_look_at(small[:1], 48)) % 48 == 0
    assert np.bincount(samples_to_look_at(large, 8)).min() == 8
