import io
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fastssd.data.jpeg_rewrite import DAMAGED, SOUND, UNSUITED, transcode

pytestmark = pytest.mark.kernels

SUBSAMPLINGS = ["4:4:4", "4:2:2", "4:2:0"]


def photograph(height, width, seed=0):
    """Structure at every scale with noise, so that blocks hold many different coefficients."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    waves = [np.sin(x / (3 + 9 * c) + y / (5 + 4 * c) + seed) for c in range(3)]
    pixels = 128 + 70 * np.stack(waves, 2) + random.normal(0, 12, (height, width, 3))
    return pixels.clip(0, 255).astype(np.uint8)


def jpeg(height, width, *, mode="RGB", **options):
    buffer = io.BytesIO()
    Image.fromarray(photograph(height, width)).convert(mode).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def pixels_of(content):
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image)


def rewritten(content):
    (result,) = transcode([content], rewrite=True)
    assert (result.status, result.reason) == (SOUND, "")
    return result.content.tobytes()


def segments(content):
    """Yield the marker and payload of each segment; those of a scan with its entropy-coded data."""
    at = 2
    while at < len(content):
        assert content[at] == 0xFF
        marker = content[at + 1]
        at += 2
        if marker == 0xD9:
            assert at == len(content)
            return
        end = at + int.from_bytes(content[at : at + 2], "big")
        payload = content[at + 2 : end]
        at = end
        if marker == 0xDA:
            while content[at] != 0xFF or content[at + 1] in (0, *range(0xD0, 0xD8)):
                at += 1
            yield marker, payload, content[end:at]
        else:
            yield marker, payload, b""


def restart_markers(data):
    return [b for a, b in itertools.pairwise(data) if a == 0xFF and 0xD0 <= b <= 0xD7]


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 100),
    width=st.integers(1, 140),
    mode=st.sampled_from(["RGB", "L"]),
    quality=st.sampled_from([1, 30, 75, 90, 100]),
    subsampling=st.sampled_from(SUBSAMPLINGS),
    progressive=st.booleans(),
    restart=st.sampled_from([{}, {"restart_marker_rows": 1}, {"restart_marker_blocks": 3}]),
)
def test_every_pixel_stays_and_the_layout_is_that_of_the_decoder(
    height, width, mode, quality, subsampling, progressive, restart
):
    options = {} if mode == "L" else {"subsampling": subsampling}
    content = jpeg(
        height, width, mode=mode, quality=quality, progressive=progressive, **options, **restart
    )

    (result,) = transcode([content], rewrite=True)
    new = result.content.tobytes()

    assert (result.height, result.width) == (height, width)
    assert np.array_equal(pixels_of(new), pixels_of(content))
    mcu_width = 16 if mode == "RGB" and subsampling != "4:4:4" else 8
    mcu_height = 16 if mode == "RGB" and subsampling == "4:2:0" else 8
    row = -(-width // mcu_width)
    assert row % result.interval == 0
    parts = list(segments(new))
    assert sorted({marker for marker, _, _ in parts} - {0xDB, 0xC4}) == [0xC0, 0xDA, 0xDD, 0xE0]
    (interval,) = [payload for marker, payload, _ in parts if marker == 0xDD]
    assert int.from_bytes(interval, "big") == result.interval
    (data,) = [data for marker, _, data in parts if marker == 0xDA]
    count = row // result.interval * -(-height // mcu_height)
    assert restart_markers(data) == [0xD0 + i % 8 for i in range(count - 1)]
    assert rewritten(new) == new


@pytest.mark.parametrize(
    ("mcus", "interval"),
    [
        (1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (7, 7), (8, 4), (9, 3), (10, 5), (14, 2), (11, 11),
        (13, 13), (15, 3), (25, 5), (32, 4), (35, 5), (47, 47), (49, 7), (62, 2), (63, 3), (77, 7),
        (121, 11), (143, 11), (250, 5),
    ],
)  # fmt: skip
def test_the_interval_divides_the_row_and_is_near_4(mcus, interval):
    (result,) = transcode([jpeg(8, 8 * mcus, mode="L")], rewrite=True)
    assert result.interval == interval


@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
@pytest.mark.parametrize("size", [(64, 96), (75, 113)])
def test_two_files_of_the_same_coefficients_become_the_same_bytes(size, subsampling):
    # Libjpeg's coefficients are the way of the progressive ones, our own symbols of the others.
    ways = [{}, {"progressive": True}, {"optimize": True}, {"restart_marker_blocks": 5}]
    files = [jpeg(*size, quality=88, subsampling=subsampling, **way) for way in ways]

    assert len(set(files)) == 4
    assert len(set(map(rewritten, files))) == 1


@pytest.mark.parametrize(("quality", "optimize"), [(75, False), (90, True), (95, True)])
def test_a_photograph_grows_by_less_than_a_hundredth(quality, optimize):
    content = jpeg(375, 500, quality=quality, optimize=optimize)
    assert 0.9 < len(rewritten(content)) / len(content) < 1.01


def test_metadata_go_and_density_stays():
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "a camera"
    content = jpeg(
        40, 50, exif=exif, comment=b"hello", icc_profile=b"profile" * 9, dpi=(72, 72), quality=90
    )

    new = rewritten(content)

    for trace in (b"camera", b"hello", b"profile", b"Exif"):
        assert trace in content
        assert trace not in new
    with Image.open(io.BytesIO(new)) as image:
        assert image.info["dpi"] == (72, 72)
    assert np.array_equal(pixels_of(new), pixels_of(content))


def test_a_file_that_holds_rgb_still_does():
    content = jpeg(40, 50, keep_rgb=True, quality=90)

    new = rewritten(content)

    assert b"Adobe" in new
    assert np.array_equal(pixels_of(new), pixels_of(content))


def test_a_file_of_neither_jfif_nor_adobe_keeps_its_colours():
    content = jpeg(40, 50, quality=90)
    assert content[2:4] == b"\xff\xe0"
    bare = content[:2] + content[20:]

    assert np.array_equal(pixels_of(rewritten(bare)), pixels_of(content))


def test_quantisation_steps_above_255_make_it_extended_and_no_pixel_changes():
    steps = [300, *range(1, 64)]
    content = jpeg(40, 50, qtables=[steps, steps])

    new = rewritten(content)

    assert 0xC1 in [marker for marker, _, _ in segments(new)]
    assert np.array_equal(pixels_of(new), pixels_of(content))


@pytest.mark.parametrize("progressive", [False, True])
def test_every_truncation_is_damage_with_a_reason(progressive):
    content = jpeg(40, 56, quality=90, progressive=progressive)
    ends = [*range(1, len(content), 7), len(content) - 1]

    for rewrite in (False, True):
        results = transcode([content[:end] for end in ends], rewrite=rewrite)
        assert {result.status for result in results} == {DAMAGED}
        assert all(result.reason for result in results)
        assert all(result.content is None for result in results)


def test_a_damaged_file_between_others_is_its_own_alone():
    good = jpeg(40, 56, quality=90)
    bad = good[:-120] + good[-60:]

    results = transcode([good, bad, b"", b"hello", good], rewrite=True)

    assert [result.status for result in results] == [SOUND, *[DAMAGED] * 3, SOUND]
    assert "Corrupt JPEG data" in results[1].reason
    assert results[0].content.tobytes() == results[4].content.tobytes() == rewritten(good)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), progressive=st.booleans(), rows=st.booleans())
def test_of_mutated_files_all_that_is_called_sound_keeps_its_pixels(data, progressive, rows):
    content = bytearray(
        jpeg(40, 56, quality=85, progressive=progressive, restart_marker_rows=int(rows))
    )
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(2, len(content) - 1))] = data.draw(st.integers(0, 255))

    (checked,) = transcode([bytes(content)], rewrite=False)
    (result,) = transcode([bytes(content)], rewrite=True)

    assert (result.status == DAMAGED) == (checked.status == DAMAGED)
    assert bool(result.reason) == (result.status != SOUND)
    if result.status == SOUND:
        assert np.array_equal(pixels_of(result.content.tobytes()), pixels_of(bytes(content)))


def test_a_progressive_file_without_its_last_scans_is_sound_but_not_rewritten():
    # A decoder smooths its blocks, which it would not do with a baseline file.
    content = jpeg(64, 64, quality=90, progressive=True)
    end = content.rindex(b"\xff\xda")
    early = content[:end] + b"\xff\xd9"
    assert pixels_of(early).shape == (64, 64, 3)

    assert transcode([early], rewrite=False)[0].status == SOUND
    (result,) = transcode([early], rewrite=True)

    assert (result.status, result.content) == (UNSUITED, None)
    assert "scans" in result.reason


def test_a_file_of_a_thousand_scans_is_refused():
    content = jpeg(64, 64, mode="L", quality=90, progressive=True)
    last = content.rindex(b"\xff\xda")
    scans = content[:-2] + content[last:-2] * 1000 + b"\xff\xd9"

    (result,) = transcode([scans], rewrite=True)

    assert result.status == DAMAGED


def test_a_header_of_a_huge_image_takes_no_huge_memory():
    content = bytearray(jpeg(40, 56, quality=90, progressive=True))
    frame = content.index(b"\xff\xc2")
    content[frame + 5 : frame + 9] = b"\xff\x00\xff\x00"

    (result,) = transcode([bytes(content)], rewrite=True)

    assert result.status != SOUND
    assert result.content is None


def test_no_files_are_nothing():
    assert transcode([], rewrite=True) == []


KINDS = {
    "4:2:0": jpeg(37, 90, quality=75),
    "4:4:4, own tables": jpeg(60, 41, quality=95, subsampling="4:4:4", optimize=True),
    "4:2:2, a marker every third MCU": jpeg(50, 77, subsampling="4:2:2", restart_marker_blocks=3),
    "a marker every row": jpeg(90, 33, quality=98, restart_marker_rows=1),
    "grey": jpeg(64, 64, mode="L"),
    "progressive": jpeg(40, 40, progressive=True),
    "one block": jpeg(5, 7, quality=100),
}


def mutated(data, content):
    content = bytearray(content)
    for _ in range(data.draw(st.integers(0, 2))):
        at = data.draw(st.integers(2, len(content) - 1))
        content[at] ^= 1 << data.draw(st.integers(0, 7))
    return bytes(content[: data.draw(st.sampled_from([None, len(content) - 3, -2]))])


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_files_that_are_checked_are_as_sound_as_rewriting_finds_each_alone(data):
    """Checking walks through several files at once, with a reader of its own."""
    kinds = data.draw(st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=6))
    files = [mutated(data, KINDS[kind]) for kind in kinds]
    for file, checked in zip(files, transcode(files, rewrite=False), strict=True):
        (alone,) = transcode([file], rewrite=True)
        expected = SOUND if alone.status == UNSUITED else alone.status
        assert (checked.status, checked.content) == (expected, None)
        if expected == DAMAGED:
            assert checked.reason == alone.reason
        assert (checked.height, checked.width) == (alone.height, alone.width)


def test_every_kind_of_file_is_sound_whatever_it_is_checked_with():
    for kinds in itertools.permutations(sorted(KINDS), 3):
        found = transcode([KINDS[kind] for kind in kinds], rewrite=False)
        assert [one.status for one in found] == [SOUND] * 3
