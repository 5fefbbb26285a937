import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastssd.data.jpeg_header import read_frame


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


@given(st.binary(max_size=200))
def test_any_bytes_give_a_frame_or_a_reason(content):
    with contextlib.suppress(ValueError):
        assert read_frame(b"\xff\xd8\xff" + content).height >= 0
