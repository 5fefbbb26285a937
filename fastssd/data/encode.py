"""From a source's content to what is stored, with a check of every image on the way."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fastssd.core.reading import reason_of
from fastssd.data.decode.shrink import Limit, shrink
from fastssd.data.decode.torchvision_decoder import decode_pixels
from fastssd.data.jpeg_header import SIGNATURE, Frame, check_scans, read_frame
from fastssd.data.jpeg_rewrite import DAMAGED, Transcoded, missing, transcode
from fastssd.data.orientation import UPRIGHT, turn
from fastssd.data.pillow_files import check_pixels, decode_file
from fastssd.data.storage.image import JPEG, MAX_SIDE, RAW, USUAL_PIXELS, StoredImage, UInt8
from fastssd.errors import FastssdError

RESTART, KEEP, PIXELS = "restart", "keep", "raw"
JPEG_CHOICES = (RESTART, KEEP, PIXELS)
"""What becomes of JPEG files: rewritten without loss, kept byte by byte, or decoded."""

VERIFY_EVERY = 64
"""One of so many rewritten files is decoded and compared, where not all are."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """An image that was decoded once and can be stored.

    Attributes:
        image: What is stored.
        height: Pixels, as stored.
        width: Pixels, as stored.
        orientation: Exif's, 1 (upright) to 8, of what is stored. Pixels are upright.
    """

    image: StoredImage
    height: int
    width: int
    orientation: int = UPRIGHT


@dataclass(frozen=True, kw_only=True, slots=True)
class Encoding:
    """How images are stored.

    Attributes:
        jpeg: One of `JPEG_CHOICES`.
        upright: Whether Exif orientation counts. If so, pixels are turned here, and a JPEG has
            its orientation beside it.
        limit: How large images may be; a JPEG that is made smaller is encoded again.
        verify: Whether all rewritten files are decoded and compared, or one in `VERIFY_EVERY`.
        max_pixels: Images of more are refused before they are decoded.
    """

    jpeg: str
    upright: bool = True
    limit: Limit = field(default_factory=Limit)
    verify: bool = False
    max_pixels: int = USUAL_PIXELS

    def stays(self, frame: Frame) -> bool:
        """Return whether a JPEG keeps its coefficients."""
        size = (frame.height, frame.width)
        return self.jpeg != PIXELS and self.limit.size(*size) == size

    def compares(self, position: int) -> bool:
        """Return whether the file at a position of its split is compared when it is rewritten."""
        return self.verify or position % VERIFY_EVERY == 0


class UnequalPixelsError(FastssdError):
    """A file that was rewritten without loss decodes to other pixels: a fault of ours.

    Args:
        index: The image among those that were encoded together.
    """

    def __init__(self, index: int) -> None:
        super().__init__("rewritten without loss, it decodes to other pixels")
        self.index = index


@dataclass(frozen=True, slots=True)
class _Jpeg:
    """A file that can stay a JPEG.

    Attributes:
        index: Among the images that are encoded together.
        content: The file.
        height: Pixels.
        width: Pixels.
        orientation: Exif's, or 1 where it does not count.
    """

    index: int
    content: bytes
    height: int
    width: int
    orientation: int

    def stored(self, content: UInt8) -> Encoded:
        """Return this file as it is stored, with this content."""
        return Encoded(StoredImage(JPEG, content), self.height, self.width, self.orientation)


def encode(content: bytes | NDArray[np.uint8], how: Encoding) -> Encoded:
    """Check an image and return it as it will be stored; see `encode_all`.

    Raises:
        ValueError: If it cannot be decoded; the message is the reason alone.
        UnequalPixelsError: If rewriting it changed its pixels.
    """
    (result,) = encode_all([content], how, [0])
    if isinstance(result, str):
        raise ValueError(result)
    return result


def encode_all(
    contents: Sequence[bytes | NDArray[np.uint8]], how: Encoding, positions: Sequence[int]
) -> list[Encoded | str]:
    """Check images and return each as it will be stored, or the reason why it cannot be.

    JPEG files that every decoder reads stay JPEG files if `how` says so; what cannot be rewritten
    without loss is kept byte by byte. Everything else becomes RGB pixels, as Pillow's
    ``convert("RGB")`` gives them: CMYK JPEG and other kinds of files, whatever their names say.

    A JPEG is checked by reading its compressed data to the end, which finds all that libjpeg
    remarks on. Without the native kernels it is decoded, which finds less.

    Args:
        contents: Of each, an encoded file, or (height, width, 3) uint8 pixels.
        how: How they are stored.
        positions: Of each in its split; they decide which rewritten files are compared.

    Raises:
        UnequalPixelsError: If rewriting a file changed its pixels.
    """
    results: list[Encoded | str] = [""] * len(contents)
    whole: list[_Jpeg] = []  # keep their coefficients
    others: list[_Jpeg] = []  # made smaller, or decoded
    for index, content in enumerate(contents):
        try:
            frame = _common_frame(content, how.max_pixels)
            if frame is None or isinstance(content, np.ndarray):
                results[index] = _limited(_decode_other(content, how), how.limit)
                continue
        except (ValueError, MemoryError) as error:
            results[index] = reason_of(error)
            continue
        orientation = frame.orientation if how.upright else UPRIGHT
        jpeg = _Jpeg(index, content, frame.height, frame.width, orientation)
        (whole if how.stays(frame) else others).append(jpeg)
    for jpeg, reason in zip(others, _reasons(others), strict=True):
        results[jpeg.index] = reason or _from_pixels(jpeg, how)
    if how.jpeg != RESTART:
        for jpeg, reason in zip(whole, _reasons(whole), strict=True):
            results[jpeg.index] = reason or jpeg.stored(np.frombuffer(jpeg.content, np.uint8))
        return results
    for jpeg in others:
        smaller = results[jpeg.index]
        if isinstance(smaller, Encoded):
            content, size = smaller.image.data.tobytes(), (smaller.height, smaller.width)
            whole.append(_Jpeg(jpeg.index, content, *size, smaller.orientation))
    for jpeg, stored in zip(whole, _rewritten(whole, how, positions), strict=True):
        results[jpeg.index] = stored
    return results


def _common_frame(content: bytes | NDArray[np.uint8], max_pixels: int) -> Frame | None:
    """Return the frame of a JPEG that every decoder reads; None of anything else."""
    if isinstance(content, np.ndarray) or not content.startswith(SIGNATURE):
        return None
    frame = read_frame(content)
    check_pixels(frame.height, frame.width, max_pixels)
    check_scans(content, frame)
    return frame if frame.common else None


def _reasons(jpegs: Sequence[_Jpeg]) -> list[str]:
    """Return why each file is damaged; empty where it is not."""
    if missing():
        return [_decoding_reason(jpeg) for jpeg in jpegs]
    return [one.reason for one in _transcoded([jpeg.content for jpeg in jpegs], rewrite=False)]


def _transcoded(files: Sequence[bytes], *, rewrite: bool) -> list[Transcoded]:
    """Check or rewrite files; one for which memory does not reach is no sound one."""
    try:
        return transcode(files, rewrite=rewrite)
    except MemoryError as error:
        if len(files) == 1:
            return [Transcoded(DAMAGED, None, 0, 0, 0, reason_of(error))]
    return [one for file in files for one in _transcoded([file], rewrite=rewrite)]


def _decoding_reason(jpeg: _Jpeg) -> str:
    try:
        decode_pixels(StoredImage(JPEG, _array(jpeg.content)))
    except ValueError as error:
        return str(error)
    return ""


def _rewritten(
    jpegs: Sequence[_Jpeg], how: Encoding, positions: Sequence[int]
) -> list[Encoded | str]:
    results: list[Encoded | str] = []
    written = _transcoded([jpeg.content for jpeg in jpegs], rewrite=True)
    for jpeg, one in zip(jpegs, written, strict=True):
        if one.status == DAMAGED:
            results.append(one.reason)
        elif one.content is None:
            results.append(jpeg.stored(np.frombuffer(jpeg.content, np.uint8)))
        else:
            compares = how.compares(positions[jpeg.index])
            reason = _compared(jpeg, one.content) if compares else ""
            results.append(reason or jpeg.stored(one.content))
    return results


def _compared(jpeg: _Jpeg, content: UInt8) -> str:
    """Compare the pixels of a file and of what it became, by another decoder than the kernel's.

    Returns:
        Why that decoder does not take the file itself; empty where it does.

    Raises:
        UnequalPixelsError: If they differ.
    """
    try:
        before = decode_pixels(StoredImage(JPEG, _array(jpeg.content)))
    except ValueError as error:
        return str(error)
    try:
        after = decode_pixels(StoredImage(JPEG, content))
    except ValueError as error:
        raise UnequalPixelsError(jpeg.index) from error
    if not np.array_equal(before, after):
        raise UnequalPixelsError(jpeg.index)
    return ""


def _from_pixels(jpeg: _Jpeg, how: Encoding) -> Encoded | str:
    """Decode a file, make it smaller and, where JPEG is kept, encode it again."""
    image = StoredImage(JPEG, _array(jpeg.content))
    try:
        if how.jpeg == PIXELS:
            return _limited(_raw(turn(decode_pixels(image), jpeg.orientation)), how.limit)
        smaller = shrink(image, how.limit)
    except (ValueError, MemoryError) as error:
        return reason_of(error)
    height, width = how.limit.size(jpeg.height, jpeg.width)
    return Encoded(smaller, height, width, jpeg.orientation)


def _limited(encoded: Encoded, limit: Limit) -> Encoded:
    """Return pixels within a limit.

    Raises:
        ValueError: If one side is longer even so than any decoder takes.
    """
    result = _raw(shrink(encoded.image, limit).data)
    if max(result.height, result.width) > MAX_SIDE:
        raise ValueError(
            f"{result.width:,} x {result.height:,} pixels exceed {MAX_SIDE:,} a side, which no "
            "decoder takes: cut it, or use --max-side"
        )
    return result


def _array(content: bytes) -> UInt8:
    # A copy, since PyTorch warns when it wraps memory that it may not write.
    return np.frombuffer(content, dtype=np.uint8).copy()


def _decode_other(content: bytes | NDArray[np.uint8], how: Encoding) -> Encoded:
    if isinstance(content, np.ndarray):
        if content.dtype != np.uint8 or content.ndim != 3 or content.shape[2] != 3:
            raise ValueError(f"pixels are {content.dtype} {content.shape}, not uint8 (h, w, 3)")
        check_pixels(content.shape[0], content.shape[1], how.max_pixels)
        return _raw(content)
    if not content:
        raise ValueError("the file is empty")
    return _raw(decode_file(content, upright=how.upright, max_pixels=how.max_pixels))


def _raw(pixels: UInt8) -> Encoded:
    if 0 in pixels.shape:
        raise ValueError(f"it has no pixels: {pixels.shape}")
    return Encoded(StoredImage(RAW, pixels), pixels.shape[0], pixels.shape[1])
