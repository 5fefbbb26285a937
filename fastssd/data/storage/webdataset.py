"""The `webdataset` format: `.tar` shards that DALI's reader opens, read at random through mmap.

Beside the shards and their text indexes a split has `{split}.index.npy`, which says where each
sample is without a look into the archives: opening takes no longer for more bytes.
"""

from array import array
from pathlib import Path
from typing import BinaryIO

import numpy as np

from fastssd.data.storage import tar_layout as layout
from fastssd.data.storage.advise import WriteBehind
from fastssd.data.storage.files import load_array, map_bytes, save_array
from fastssd.data.storage.image import JPEG, RAW, StoredBatch, StoredImage, UInt8
from fastssd.data.storage.storage import Int32, Int64, address_of, check_samples
from fastssd.errors import DataError

SHARD_BYTES = 1 << 30
"""A shard is closed once it is larger: what WebDataset's own tools aim at."""

# Columns of `{split}.index.npy`, (N, 6) int64. Offset and size are those of the image's member.
_SHARD, _OFFSET, _SIZE, _HEIGHT, _WIDTH, _MODE = range(6)
_MODE_JPEG, _MODE_RAW = 0, 1


class WebDatasetStorage:
    """The mapped shards of a split, written by `WebDatasetWriter`."""

    def __init__(self, folder: Path, split: str) -> None:
        self._index_path = folder / f"{split}.index.npy"
        index: Int64 = load_array(self._index_path, dtype=np.int64, ndim=2)
        _check_index(index, self._index_path)
        last_of_shard = np.flatnonzero(np.diff(index[:, _SHARD], append=-1))
        self._paths = [layout.shard_path(folder, split, i) for i in range(len(last_of_shard))]
        self._shards = [
            _open_shard(path, int(index[last, _OFFSET] + index[last, _SIZE]))
            for path, last in zip(self._paths, last_of_shard, strict=True)
        ]
        self.sizes: Int32 = index[:, [_HEIGHT, _WIDTH]].astype(np.int32)
        # Plain columns: a row of them costs less to index than a row of the table.
        self._shard_of, self._starts = index[:, _SHARD].copy(), index[:, _OFFSET].copy()
        self._ends = self._starts + index[:, _SIZE]
        self._raw = index[:, _MODE] == _MODE_RAW
        self._addresses = np.array([address_of(shard) for shard in self._shards], dtype=np.int64)
        # Of raw images: what stands before the pixels, which end their member.
        areas = self.sizes.astype(np.int64).prod(axis=1) * 3
        self._before = np.where(self._raw, index[:, _SIZE] - areas, 0)
        self._checked = np.zeros(len(index), dtype=np.bool_)

    @property
    def mapped(self) -> list[UInt8]:
        return self._shards

    def __len__(self) -> int:
        return len(self.sizes)

    def read(self, sample: int) -> StoredImage:
        check_samples(np.array([sample]), len(self.sizes), self._index_path)
        shard = int(self._shard_of[sample])
        content = self._shards[shard]
        start, end = int(self._starts[sample]), int(self._ends[sample])
        name = layout.stem(sample).encode()
        header = start - layout.BLOCK
        # The archive could be of another conversion than its index, or overwritten.
        if content[header : header + len(name)].tobytes() != name:
            raise self._damaged(sample, shard)
        if not self._raw[sample]:
            return StoredImage(JPEG, content[start:end])
        height, width = (int(value) for value in self.sizes[sample])
        before = layout.pixels_header(height, width)
        pixels = content[start + len(before) : end]
        same_header = content[start : start + len(before)].tobytes() == before
        if not same_header or len(pixels) != height * width * 3:
            raise self._damaged(sample, shard)
        return StoredImage(RAW, pixels.reshape(height, width, 3))

    def read_batch(self, samples: Int64) -> StoredBatch:
        check_samples(samples, len(self.sizes), self._index_path)
        # What stands before an image is looked at once: it lies in pages that are read anyway.
        for sample in samples[~self._checked[samples]]:
            self.read(int(sample))
            self._checked[sample] = True
        return self.locate(samples)

    def locate(self, samples: Int64) -> StoredBatch:
        check_samples(samples, len(self.sizes), self._index_path)
        starts = self._starts[samples] + self._before[samples]
        return StoredBatch(
            addresses=(starts + self._addresses[self._shard_of[samples]]).astype(np.uint64),
            num_bytes=self._ends[samples] - starts,
            raw=self._raw[samples],
            sizes=self.sizes[samples],
            owner=self._shards,
        )

    def _damaged(self, sample: int, shard: int) -> DataError:
        return DataError(
            f"{self._paths[shard]}: sample {sample} is not where {self._index_path.name} says; "
            "the two do not belong together, or the archive is damaged: convert the dataset again"
        )


class WebDatasetWriter:
    """Writes shards one after another, and the index of each when it is full."""

    def __init__(self, folder: Path, split: str, *, shard_bytes: int = SHARD_BYTES) -> None:
        self._folder = folder
        self._split = split
        self._shard_bytes = shard_bytes
        self._rows = array("q")  # six numbers a sample
        self._num_samples = 0
        self._shard = -1
        self._file: BinaryIO | None = None
        self._behind: WriteBehind | None = None
        self._end = 0
        self._lines = layout.IndexLines()

    def append(self, image: StoredImage, *, height: int, width: int, label: int) -> None:
        before = layout.pixels_header(height, width) if image.mode == RAW else b""
        num_bytes = len(before) + image.data.nbytes
        if num_bytes > layout.MAX_MEMBER_BYTES:
            raise ValueError(
                f"{num_bytes} bytes exceed a tar member's largest, {layout.MAX_MEMBER_BYTES}"
            )
        if self._file is not None and self._end >= self._shard_bytes:
            self._close_shard()
        file = self._file or self._open_shard()
        sample = self._num_samples
        digits = str(label).encode()
        # The image last, so that its end tells the length of the archive.
        text = self._add(file, sample, layout.LABEL_SUFFIX, [digits], len(digits))
        suffix = layout.RAW_SUFFIX if image.mode == RAW else layout.JPEG_SUFFIX
        parts: list[bytes | memoryview] = [before, np.ascontiguousarray(image.data).data]
        member = self._add(file, sample, suffix, parts, num_bytes)
        self._lines.add(sample, [text, member])
        mode = _MODE_RAW if image.mode == RAW else _MODE_JPEG
        self._rows.extend((self._shard, member.offset, member.size, height, width, mode))
        self._num_samples += 1

    def finish(self) -> None:
        if self._file is not None:
            self._close_shard()
        rows = np.array(self._rows, dtype=np.int64).reshape(-1, 6)
        save_array(self._folder / f"{self._split}.index.npy", rows)

    def abandon(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open_shard(self) -> BinaryIO:
        self._shard += 1
        self._end = 0
        self._lines = layout.IndexLines()
        self._file = layout.shard_path(self._folder, self._split, self._shard).open("wb")
        self._behind = WriteBehind(self._file)
        return self._file

    def _add(
        self, file: BinaryIO, sample: int, suffix: str, parts: list[bytes | memoryview], size: int
    ) -> layout.Member:
        file.write(layout.member_header(sample, suffix, size))
        for part in parts:
            file.write(part)
        file.write(bytes(layout.padded(size) - size))
        member = layout.Member(suffix, self._end + layout.BLOCK, size)
        self._end = member.offset + layout.padded(size)
        if self._behind is not None:
            self._behind.written(self._end)
        return member

    def _close_shard(self) -> None:
        assert self._file is not None  # callers have seen it open
        self._file.write(bytes(layout.shard_bytes(self._end) - self._end))
        self.abandon()
        path = layout.shard_path(self._folder, self._split, self._shard)
        path.with_suffix(".idx").write_bytes(self._lines.text().encode())


def _check_index(index: Int64, path: Path) -> None:
    if index.shape[1] != 6:
        raise _bad_index(path, f"it has {index.shape[1]} columns where 6 are expected")
    shards, offsets, sizes = index[:, _SHARD], index[:, _OFFSET], index[:, _SIZE]
    same_shard = np.diff(shards, prepend=-1) == 0
    wrong = ~np.isin(index[:, _MODE], (_MODE_JPEG, _MODE_RAW)) | (sizes < 1)
    wrong |= (index[:, [_HEIGHT, _WIDTH]] < 1).any(axis=1)
    wrong |= (index[:, [_HEIGHT, _WIDTH]] >= 1 << 31).any(axis=1)
    wrong |= (shards < 0) | (~same_shard & (np.diff(shards, prepend=-1) != 1))
    # Each image lies behind its own label's member and, in one shard, behind the image before.
    # Sizes are compared with the distance, as the sum of damaged numbers could wrap around.
    ends = np.where(same_shard, np.roll(offsets, 1), 0)
    before = np.where(same_shard, np.roll(sizes, 1), 0)
    wrong |= (offsets < 3 * layout.BLOCK) | (offsets >= 1 << 62) | (sizes > 1 << 62)
    wrong |= offsets - ends - 3 * layout.BLOCK < before
    raw = index[:, _MODE] == _MODE_RAW
    areas = index[:, _HEIGHT].astype(np.float64) * index[:, _WIDTH] * 3
    headers = sizes - areas
    wrong |= raw & ((headers < len(layout.pixels_header(1, 1))) | (headers > 32))
    if wrong.any():
        sample = int(np.flatnonzero(wrong)[0])
        raise _bad_index(path, f"the entry of sample {sample} contradicts itself or the one before")


def _open_shard(path: Path, end_of_content: int) -> UInt8:
    content = map_bytes(path)
    expected = layout.shard_bytes(end_of_content)
    if len(content) != expected or content[layout.padded(end_of_content) :].any():
        raise DataError(
            f"{path}: not the complete archive of its index: {len(content)} bytes where {expected} "
            "with its end marks are expected; convert the dataset again"
        )
    return content


def _bad_index(path: Path, reason: str) -> DataError:
    return DataError(f"{path}: not a valid index: {reason}; convert the dataset again")
