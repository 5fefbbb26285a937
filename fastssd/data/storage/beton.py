"""Reading and writing FFCV's `.beton` files: an RGB image field and an integer label field."""

from pathlib import Path

import numpy as np

from fastssd.data.storage import beton_layout as layout
from fastssd.data.storage.advise import WriteBehind
from fastssd.data.storage.files import map_bytes
from fastssd.data.storage.image import JPEG, RAW, StoredBatch, StoredImage, UInt8
from fastssd.data.storage.storage import Int32, Int64, address_of, check_samples

_TYPE_IDS = [layout.TYPE_RGB_IMAGE, layout.TYPE_INT]
_NAMES = [b"image", b"label"]


class BetonStorage:
    """A mapped `.beton` file, by fastssd or by FFCV's own writer.

    Attributes:
        integers: The integer fields by name, in the file's order, (N,) int64 each.
        labels: The first of them, or None where there is none.
        page_size: Bytes.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._bytes = map_bytes(path)
        parsed = layout.parse(self._bytes, path)
        self.integers = parsed.integers
        self.labels = next(iter(parsed.integers.values()), None)
        self.page_size = parsed.page_size
        self.sizes: Int32 = np.stack([parsed.images["height"], parsed.images["width"]], 1).astype(
            np.int32
        )
        # Plain arrays: indexing a structured one costs several times as much.
        self._raw = parsed.images["mode"] == layout.MODE_RAW
        self._starts = parsed.images["data_ptr"].astype(np.int64)
        self._ends = self._starts + parsed.sizes.astype(np.int64)

    @property
    def mapped(self) -> list[UInt8]:
        return [self._bytes]

    def __len__(self) -> int:
        return len(self.sizes)

    def read(self, sample: int) -> StoredImage:
        check_samples(np.array([sample]), len(self.sizes), self._path)
        data = self._bytes[self._starts[sample] : self._ends[sample]]
        if not self._raw[sample]:
            return StoredImage(JPEG, data)
        height, width = self.sizes[sample]
        return StoredImage(RAW, data.reshape(height, width, 3))

    def read_batch(self, samples: Int64) -> StoredBatch:
        return self.locate(samples)

    def locate(self, samples: Int64) -> StoredBatch:
        check_samples(samples, len(self.sizes), self._path)
        starts = self._starts[samples]
        return StoredBatch(
            addresses=(starts + address_of(self._bytes)).astype(np.uint64),
            num_bytes=self._ends[samples] - starts,
            raw=self._raw[samples],
            sizes=self.sizes[samples],
            owner=self._bytes,
        )


class BetonWriter:
    """Writes a `.beton` file in one pass.

    The header is written last, so that a file whose writer was killed is recognised. The page size
    starts at the smallest that FFCV takes and doubles when an image needs more: what did not
    straddle the smaller pages does not straddle the larger ones.
    """

    def __init__(self, path: Path, *, capacity: int) -> None:
        self._path = path
        self._page_size = layout.MIN_PAGE_SIZE
        self._metadata = np.zeros(capacity, dtype=layout.metadata_dtype(_TYPE_IDS))
        self._allocations = np.zeros(capacity, dtype=layout.ALLOCATION)
        self._num_samples = 0
        head = layout.HEADER.itemsize + len(_TYPE_IDS) * layout.DESCRIPTOR.itemsize
        self._end = _round_up(head + self._metadata.nbytes, self._page_size)
        self._file = path.open("wb")
        self._behind = WriteBehind(self._file)

    def append(self, image: StoredImage, *, height: int, width: int, label: int) -> None:
        if max(height, width) > layout.MAX_SIDE:
            raise ValueError(
                f"{width} x {height} pixels exceed the .beton format's {layout.MAX_SIDE} a side"
            )
        pointer = self._allocate(image.data.nbytes)
        self._file.seek(pointer)
        self._file.write(np.ascontiguousarray(image.data).data)
        mode = layout.MODE_JPEG if image.mode == JPEG else layout.MODE_RAW
        self._metadata[self._num_samples] = ((mode, width, height, pointer), label)
        self._allocations[self._num_samples] = (self._num_samples, pointer, image.data.nbytes)
        self._num_samples += 1
        self._behind.written(self._end)

    def finish(self) -> None:
        # FFCV's page cache reads whole pages, so the last one is filled up before the table.
        table_ptr = _round_up(self._end, self._page_size)
        self._file.seek(table_ptr)
        self._file.write(self._allocations[: self._num_samples].tobytes())
        descriptors = np.zeros(len(_TYPE_IDS), dtype=layout.DESCRIPTOR)
        descriptors["type_id"], descriptors["name"] = _TYPE_IDS, _NAMES
        self._file.seek(layout.HEADER.itemsize)
        self._file.write(descriptors.tobytes())
        self._file.write(self._metadata[: self._num_samples].tobytes())
        self._file.flush()
        header = np.zeros((), dtype=layout.HEADER)
        header["version"], header["num_fields"] = layout.VERSION, len(_TYPE_IDS)
        header["page_size"], header["num_samples"] = self._page_size, self._num_samples
        header["alloc_table_ptr"] = table_ptr
        self._file.seek(0)
        self._file.write(header.tobytes())
        self._file.close()

    def abandon(self) -> None:
        self._file.close()

    def _allocate(self, num_bytes: int) -> int:
        if num_bytes > layout.MAX_PAGE_SIZE:
            raise ValueError(
                f"{num_bytes} bytes exceed the .beton format's largest page, "
                f"{layout.MAX_PAGE_SIZE} bytes"
            )
        while self._page_size < num_bytes:
            self._page_size *= 2
        start = self._end
        if start % self._page_size + num_bytes > self._page_size:
            start = _round_up(start, self._page_size)
        self._end = start + num_bytes
        return start


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
