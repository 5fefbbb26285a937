"""The sources by the name that `tools/convert_dataset.py` gives them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fastssd.data.sources.digits import open_digits
from fastssd.data.sources.image_folder import open_image_folder
from fastssd.data.sources.source import Source
from fastssd.errors import ConfigError


@dataclass(frozen=True, slots=True)
class SourceEntry:
    """How to open a source.

    Attributes:
        description: One line for `--help`.
        open: From what the user named to the source.
    """

    description: str
    open: Callable[[str], Source]


SOURCES: dict[str, SourceEntry] = {
    "digits": SourceEntry("scikit-learn's digits, 1,797 images of 8 x 8 pixels", open_digits),
}


def open_source(text: str) -> Source:
    """Open a source by its name, or a folder by its path.

    Raises:
        ConfigError: If it is neither.
    """
    if text in SOURCES:
        return SOURCES[text].open(text)
    if not Path(text).is_dir():
        raise ConfigError(
            f"SOURCE {text}: neither a folder nor one of the sources by name ({', '.join(SOURCES)})"
        )
    return open_image_folder(text)
