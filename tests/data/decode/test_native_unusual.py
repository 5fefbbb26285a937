"""Unusual files: what the check calls sound decodes to Pillow's pixels, the rest has a reason."""

import io

import numpy as np
import pytest
from PIL import Image
from small_jpegs import flat_jpeg, grey_jpeg, huffman_table, packed, scan, segment

from fastssd.data.decode.decoder import DecodeError
from fastssd.data.jpeg_rewrite import DAMAGED, SOUND, UNSUITED, transcode
from fastssd.data.storage.image import StoredImage
from fastssd.native.library import library

if library() is None:
    pytest.skip("the native kernels were not built", allow_module_level=True)

from fastssd.data.decode.native_decoder import NativeDecoder

DECODER = NativeDecoder(threads=1)
HEIGHT, WIDTH = 40, 60
ENDS = {"0": 0x00}
"""A table of one symbol: no difference, or the end of a block."""


def encode(pixels, mode="RGB", **options):
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, "JPEG", **{"quality": 60, **options})
    return buffer.getvalue()


def picture(height, width, seed=0, detail=9):
    small = np.random.default_rng(seed).integers(0, 256, (detail, detail, 3)).astype(np.uint8)
    return np.array(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


KINDS = {
    "plain": encode(picture(HEIGHT, WIDTH), quality=90),
    "restart": encode(picture(HEIGHT, WIDTH, 1), restart_marker_blocks=2),
    "grey": encode(picture(HEIGHT, WIDTH, 2), "L", restart_marker_blocks=5),
}


def pillow(content):
    with Image.open(io.BytesIO(content)) as image:
        return np.array(image.convert("RGB"))


def decode(content, *boxes, size=None):
    """Return the pixels of boxes, which are squares of `size`, or of any size to be resized."""
    image = StoredImage("jpeg", np.frombuffer(content, np.uint8).copy())
    return DECODER.decode([image], np.array([boxes]), size or boxes[0][2])[:, 0]


def whole(content, height=HEIGHT, width=WIDTH):
    side = max(height, width)
    return decode(content, [0, 0, side, side])[0, :height, :width]


def reason_of(content, box=(0, 0, 8, 8)):
    with pytest.raises(DecodeError) as caught:
        decode(content, list(box))
    return caught.value.reason


def statuses(content):
    return tuple(transcode([content], rewrite=rewrite)[0].status for rewrite in (False, True))


def assert_sound(content, height=HEIGHT, width=WIDTH):
    expected = pillow(content)
    assert statuses(content) == (SOUND, SOUND)
    assert np.array_equal(whole(content, height, width), expected)
    rewritten = transcode([content], rewrite=True)[0].content.tobytes()
    assert np.array_equal(pillow(rewritten), expected)


BEHIND = {
    "the height again": segment(0xDC, HEIGHT.to_bytes(2, "big")),
    "a comment": segment(0xFE, b"made \xff\xd9 by hand"),
    "metadata": segment(0xE1, b"Exif\0\0" + bytes(30)),
    "one more restart marker": b"\xff\xd4",
    "fill bytes": b"\xff\xff\xff",
    "a table": huffman_table(0x00, {"0": 3}),
    "several": b"\xff\xd4" + segment(0xFE, b"") + b"\xff" + segment(0xDD, b"\0\5") + b"\xff\xd0",
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("behind", BEHIND)
def test_what_stands_before_the_end_and_changes_no_pixel_is_passed_over(kind, behind):
    content = KINDS[kind]
    assert_sound(content[:-2] + BEHIND[behind] + content[-2:])


def test_steps_behind_the_data_are_not_those_of_its_pixels():
    content = KINDS["plain"][:-2] + segment(0xDB, b"\0" + bytes(range(1, 65))) + b"\xff\xd9"
    assert statuses(content) == (SOUND, UNSUITED)  # no copy could be told from the original
    assert np.array_equal(whole(content), pillow(content))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("tail", "named"),
    [
        (segment(0xFE, b"comment"), "0xfe"),
        (segment(0xFE, b"comment")[:-3] + b"\xff\xd9", "0xfe"),
        (b"\xff\xd4between\xff\xd9", "0xd4"),
        (b"\xff\xfe", "0xfe"),
        (b"\xff\xc0\xff\xd9", "0xc0"),
        (segment(0xDA, b"\1\1\0\0\x3f\0") + b"\xff\xd9", "0xda"),
        (b"\xff\xff", "early"),
        (b"", "early"),
    ],
)
def test_a_file_without_its_end_behind_the_data_is_damaged(kind, tail, named):
    content = KINDS[kind][:-2] + tail
    assert named in reason_of(content)
    assert statuses(content) == (DAMAGED, DAMAGED)


@pytest.mark.parametrize("marker", [b"\xff\xd9", b"\xff\xd4"])
def test_padding_behind_a_segment_is_none_of_its_blocks(marker):
    # libjpeg has read so few bytes ahead before it sees that no block needs them.
    content = KINDS["restart"]
    at = content.index(marker, content.index(b"\xff\xda"))
    assert_sound(content[:at] + b"\0" + content[at:])
    longer = content[:at] + bytes(20) + content[at:]
    assert "too long" in reason_of(longer, (0, 0, WIDTH, WIDTH))
    assert statuses(longer) == (DAMAGED, DAMAGED)


def test_bytes_behind_the_last_row_are_damage_where_libjpeg_decodes_alone():
    content = encode(picture(HEIGHT, WIDTH), keep_rgb=True)
    longer = content[:-2] + bytes(20) + content[-2:]
    assert "extraneous" in reason_of(longer, (0, 0, WIDTH, WIDTH))
    assert statuses(longer) == (DAMAGED, DAMAGED)


@pytest.mark.parametrize("quantiser", [4096, 16384, 40000])
def test_values_that_overflow_have_libjpegs_pixels(quantiser):
    dc, ac = {"0": 0, "10": 2, "110": 3}, {"0": 0x00, "10": 0x02, "110": 0x12, "1110": 0x32}
    blocks = [
        "1011" + "0",  # 3 and nothing else
        "110101" + "1011" + "0",  # in the first row alone, and in others
        "110111" + "1001" + "111010" + "0",
        "1000" + "11011" + "1010" + "0",
    ]
    bits = "".join(blocks[number % 4] for number in range(24))
    content = grey_jpeg(scan([bits]), size=(32, 48), dc=dc, ac=ac, quantiser=quantiser)
    assert_sound(content, 32, 48)


@pytest.mark.parametrize("samplings", [[0x31, 0x21, 0x11], [0x13, 0x12, 0x11], [0x11, 0x33, 0x22]])
def test_colours_sampled_at_a_fraction_are_refused(samplings):
    content = flat_jpeg(samplings, size=(HEIGHT, WIDTH), interval=2)
    assert statuses(content) == (DAMAGED, DAMAGED)
    assert "fraction" in reason_of(content)
    assert_sound(flat_jpeg([0x41, 0x21, 0x11], size=(HEIGHT, WIDTH)))


@pytest.mark.parametrize("kind", KINDS)
def test_several_ff_before_a_stuffed_zero_are_one(kind):
    content = KINDS[kind]
    at = content.index(b"\xff\x00", content.index(b"\xff\xda"))
    for more in (1, 2, 5):
        changed = content[:at] + b"\xff" * more + content[at:]
        assert np.array_equal(whole(changed), whole(content))
        assert_sound(changed)


def test_a_code_of_ones_alone_makes_no_table():
    full = {"0": 0, "1": 1}
    for tables in ({"dc": full, "ac": ENDS}, {"dc": ENDS, "ac": full}):
        content = grey_jpeg(scan(["00"]), size=(8, 8), **tables)
        assert statuses(content) == (DAMAGED, DAMAGED)
        assert "Huffman" in reason_of(content)
        with pytest.raises(OSError, match="data stream"):
            pillow(content)


def test_a_run_of_zeros_beyond_the_block_leads_to_its_last_coefficient():
    # 15 zeros and a one, four times: the last would be coefficient 64.
    ac = {"0": 0x00, "10": 0xF1}
    block = "0" + "101" * 4
    for run, size in ((block, (8, 8)), (block + "00" + block, (8, 24)), (block * 12, (32, 24))):
        content = grey_jpeg(scan([run]), size=size, dc=ENDS, ac=ac, quantiser=90)
        assert_sound(content, *size)
        assert np.ptp(whole(content, *size)) > 50


def test_as_many_scans_are_decoded_as_are_checked():
    def of_scans(number):
        scans = scan(["100"], first=0, last=0) * (number - 1) + scan(["0"], first=1)
        return grey_jpeg(
            scans, size=(8, 8), dc={"0": 0, "10": 1}, ac=ENDS, quantiser=99, progressive=True
        )

    assert_sound(of_scans(300), 8, 8)
    assert statuses(of_scans(600)) == (DAMAGED, DAMAGED)
    assert "scans" in reason_of(of_scans(600))


def test_warnings_about_metadata_alone_are_no_damage():
    content = KINDS["plain"]
    assert content[6:11] == b"JFIF\0"
    assert_sound(content[:11] + b"\2" + content[12:])
    with_adobe = encode(picture(HEIGHT, WIDTH), keep_rgb=True)
    transform = with_adobe.index(b"Adobe") + 11
    assert_sound(with_adobe[:transform] + b"\7" + with_adobe[transform + 1 :])


def cut_after(content, number):
    """End a progressive file behind so many of its scans."""
    end = 0
    for _ in range(number + 1):
        end = content.index(b"\xff\xda", end + 2)
    return content[:end] + b"\xff\xd9"


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:0"])
@pytest.mark.parametrize("number", [1, 2, 5])
def test_pixels_of_smoothed_blocks_do_not_depend_on_what_else_is_decoded(number, subsampling):
    content = encode(picture(256, 256, detail=60), progressive=True, subsampling=subsampling)
    content = cut_after(content, number)
    assert statuses(content)[0] == SOUND
    box, other = [96, 96, 64, 64], [0, 0, 64, 64]

    alone, together = decode(content, box), decode(content, box, other)

    assert np.array_equal(alone[0], whole(content, 256, 256)[96:160, 96:160])
    assert np.array_equal(together[0], alone[0])
    for size in (8, 16, 24):  # at fractions of the image's size
        shrunk = decode(content, box, other, size=size)
        assert np.array_equal(shrunk[0], decode(content, box, size=size)[0])


def test_an_image_of_more_pixels_than_the_limit_is_refused_whatever_its_kind():
    content = KINDS["plain"]
    frame = content.index(b"\xff\xc0") + 5
    data = content.index(b"\xff\xda") + 14
    rows, columns = 1019, 4094
    header = content[:frame] + (16300).to_bytes(2, "big") + (65500).to_bytes(2, "big")
    # An MCU of 4:2:0 with nothing in it has 32 bits in the usual tables.
    mcu = packed("001010" * 4 + "0000" * 2)
    huge = header + content[frame + 4 : data] + mcu * (rows * columns) + b"\xff\xd9"
    assert statuses(huge) == (DAMAGED, DAMAGED)
    assert "2^28" in reason_of(huge)
    wide = content[:frame] + b"\0\1" + (65501).to_bytes(2, "big") + content[frame + 4 :]
    assert "65500" in reason_of(wide)
