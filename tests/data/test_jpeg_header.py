import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from operations import cost_of

from fastssd.data.jpeg_header import MAX_SCANS, Frame, check_scans, read_frame


@pytest.mark.parametrize(
    ("mode", "options", "process", "num_components", "common"),
    [
        ("RGB", {}, 0xC0, 3, True),
        ("L", {}, 0xC0, 1, True),
        ("RGB", {"progressive": True}, 0xC2, 3, True),
        ("CMYK", {}, 0xC0, 4, False),
        ("RGB", {"comment": b"\xff\xc0 is no marker here"}, 0xC0, 3, True),
    ],
)
def test_the_frame_says_what_pillow_was_asked_for(
    picture, encoded, mode, options, process, num_components, common
):
    frame = read_frame(encoded(picture(21, 34), mode=mode, **options))

    assert (frame.height, frame.width, frame.precision) == (21, 34, 8)
    assert (frame.process, frame.num_components) == (process, num_components)
    assert frame.common is common


def test_fill_bytes_before_a_marker_are_skipped(picture, encoded):
    content = encoded(picture(21, 34))
    assert read_frame(content[:2] + b"\xff\xff" + content[2:]).width == 34


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n", b"\xff\xd8\xff"])
def test_what_has_no_header_is_refused(content):
    with pytest.raises(ValueError, match=r"JPEG|header"):
        read_frame(content)


def repeated_scan(content, times):
    """A progressive file whose first scan, which is whole, is there so many times."""
    start = content.index(b"\xff\xda")
    end = content.index(b"\xff\xc4", start)
    return content[:start] + content[start:end] * times + content[end:]


def test_a_file_of_many_scans_is_refused_and_scans_of_a_preview_do_not_count(picture, encoded):
    content = encoded(picture(21, 34), progressive=True)
    num_scans = content.count(b"\xff\xda")
    frame = read_frame(content)
    preview = b"\xff\xda\0\x08" * 300
    thumbnail = b"\xff\xe1" + (len(preview) + 2).to_bytes(2, "big") + preview

    for sound in (
        content,
        repeated_scan(content, MAX_SCANS - num_scans + 1),
        content[:2] + thumbnail + content[2:],
        content + preview,
    ):
        check_scans(sound, frame)
    for many in (
        repeated_scan(content, MAX_SCANS - num_scans + 2),
        content[:2] + thumbnail + repeated_scan(content, 490)[2:],
    ):
        with pytest.raises(ValueError, match=f"more than {MAX_SCANS} scans"):
            check_scans(many, frame)
    check_scans(content + preview, read_frame(encoded(picture(21, 34))))


@given(st.lists(st.sampled_from([b"\xff\xda", b"\xff\xe1", b"\0\4", b"\xff\xd9", b"\xff\0", b"x"])))
def test_scans_are_counted_in_one_pass(parts):
    content = b"\xff\xd8" + b"".join(parts) * 20
    frame = Frame(process=0xC2, precision=8, height=1, width=1, num_components=1)

    cost = cost_of(check_scans, content, frame, at_most=20 * MAX_SCANS + len(content) * 5)

    assert cost.outcome is None or isinstance(cost.outcome, ValueError)


@given(st.binary(max_size=200))
def test_any_bytes_give_a_frame_or_a_reason(content):
    with contextlib.suppress(ValueError):
        assert read_frame(b"\xff\xd8\xff" + content).height >= 0
