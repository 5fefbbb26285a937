"""The sources by the kind that `tools/convert_dataset.py` gives them, and how one is recognised."""

import difflib
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

from fastssd.data.sources.beton_file import is_beton, open_beton
from fastssd.data.sources.cifar import is_cifar, open_cifar
from fastssd.data.sources.digits import open_digits
from fastssd.data.sources.hugging_face import is_hugging_face, open_hugging_face
from fastssd.data.sources.image_csv import is_image_csv, open_image_csv
from fastssd.data.sources.image_folder import is_image_folder, open_image_folder
from fastssd.data.sources.image_list import is_image_list, open_image_list
from fastssd.data.sources.inaturalist import is_inaturalist, open_inaturalist
from fastssd.data.sources.known import DESCRIPTIONS, find_known, open_known
from fastssd.data.sources.source import OpenedSource, SourceOptions
from fastssd.data.sources.summary import checked
from fastssd.data.sources.tar_shards import is_tar_shards, open_tar_shards
from fastssd.data.sources.torchvision_named import PREFIX, open_torchvision
from fastssd.errors import ConfigError

FOLDER, KNOWN, DIGITS, TORCHVISION = "folder", "known", "digits", "torchvision"


def _never(path: Path) -> bool:
    return False


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceEntry:
    """How to recognise and open a source. The module may import what it needs only in `open`.

    Attributes:
        description: One line for `--help`.
        open: From what the user named and said to the source.
        recognises: Whether a path looks like one.
        options: The fields of `SourceOptions` that it reads; others are refused.
    """

    description: str
    open: Callable[[str, SourceOptions], OpenedSource]
    recognises: Callable[[Path], bool] = _never
    options: frozenset[str] = frozenset()


_PARTS = frozenset({"val", "test", "classes"})

SOURCES: dict[str, SourceEntry] = {
    FOLDER: SourceEntry(
        description="DIR/train/CLASS/*, also val and test; or DIR/CLASS/*",
        open=open_image_folder,
        recognises=is_image_folder,
        options=frozenset({"split_names"}),
    ),
    "list": SourceEntry(
        description="TXT with lines `PATH LABEL`, as X_train.txt, X_val.txt, X_test.txt",
        open=open_image_list,
        recognises=is_image_list,
        options=_PARTS | {"root"},
    ),
    "csv": SourceEntry(
        description="CSV with a header: path, label and, if there is one, split",
        open=open_image_csv,
        recognises=is_image_csv,
        options=_PARTS | {"split_names", "root", "image_column", "label_column"},
    ),
    "inat": SourceEntry(
        description="iNaturalist's train2018.json, with val2018.json beside it",
        open=open_inaturalist,
        recognises=is_inaturalist,
        options=frozenset({"root", "val", "test"}),
    ),
    "cifar": SourceEntry(
        description="CIFAR's python or binary files, in their folder or .tar.gz",
        open=open_cifar,
        recognises=is_cifar,
    ),
    "hf": SourceEntry(
        description="a folder by Hugging Face's save_to_disk, or of Parquet files",
        open=open_hugging_face,
        recognises=is_hugging_face,
        options=frozenset({"split_names", "classes", "image_column", "label_column"}),
    ),
    "webdataset": SourceEntry(
        description=".tar shards: a folder, 'a-{0000..0012}.tar' or 'a-*.tar'",
        open=open_tar_shards,
        recognises=is_tar_shards,
        options=_PARTS | {"split_names", "image_column", "label_column"},
    ),
    "beton": SourceEntry(
        description="FFCV's .beton, with any fields besides image and label",
        open=open_beton,
        recognises=is_beton,
        options=_PARTS | {"label_column"},
    ),
    TORCHVISION: SourceEntry(
        description="torchvision:NAME, a dataset in the layout of that class, such as Food101",
        open=open_torchvision,
        options=frozenset({"root"}),
    ),
    KNOWN: SourceEntry(
        description="a dataset by name: see below",
        open=open_known,
        options=frozenset({"root", "lists", "classes"}),
    ),
    DIGITS: SourceEntry(
        description="scikit-learn's digits, 1,797 images of 8 x 8 pixels", open=open_digits
    ),
}
NAMES: dict[str, str] = {DIGITS: SOURCES[DIGITS].description, **DESCRIPTIONS}
"""The sources that have a name of their own, with a line for `--help` each."""


def open_source(
    text: str, *, kind: str | None = None, options: SourceOptions | None = None
) -> OpenedSource:
    """Open a source by its name or path.

    Args:
        text: What the user named.
        kind: A key of `SOURCES`; by default what the name or the files look like.
        options: What the user said besides.

    Raises:
        ConfigError: If the kind cannot be told, or an option is not for this kind.
        DataError: If files are missing or damaged; names them.
    """
    options = options or SourceOptions()
    if kind is not None and kind not in SOURCES:
        raise ConfigError(f"--kind {kind}: choose one of {', '.join(SOURCES)}")
    kind = kind or find_kind(text)
    entry = SOURCES[kind]
    for one in fields(options):
        if getattr(options, one.name) is not None and one.name not in entry.options:
            option = "--" + one.name.replace("_", "-")
            takers = [name for name, other in SOURCES.items() if one.name in other.options]
            raise ConfigError(
                f"{option}: is not for SOURCE {text}, which is of the kind {kind}; it is for "
                f"{', '.join(takers)}"
            )
    return checked(entry.open(text, options))


def find_kind(text: str) -> str:
    """Return what kind of source a name or path is.

    Raises:
        ConfigError: If it is none, or could be several.
    """
    if text == DIGITS:
        return DIGITS
    if text.startswith(PREFIX):
        return TORCHVISION
    path = Path(text)
    if find_known(text) is not None:
        return KNOWN
    found = [kind for kind, entry in SOURCES.items() if entry.recognises(path)]
    if len(found) == 1:
        return found[0]
    if found:
        raise ConfigError(f"SOURCE {text}: could be {' or '.join(found)}: say which with --kind")
    if path.is_dir():
        return FOLDER
    if path.exists():
        raise ConfigError(f"SOURCE {text}: its kind cannot be told: say it with --kind")
    nearest = difflib.get_close_matches(text, NAMES, n=1)
    hint = f"; did you mean {nearest[0]}?" if nearest else ""
    raise ConfigError(
        f"SOURCE {text}: neither a folder, nor a file, nor one of the sources by name "
        f"({', '.join(NAMES)}){hint}"
    )
