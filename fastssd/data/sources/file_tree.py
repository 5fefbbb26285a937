"""The image files of class folders: one rule for what belongs to a class and what does not.

An image of a class is a regular file that is named like one, or a link to one, anywhere below the
class's folder. Hidden names, other programs' thumbnails and trash, pipes and the like are left out
and listed. Links are followed, but no image is taken twice: what a link leads to and the class has
already is left out, and what another class has is an error, since an image has one label.
"""

import os
import stat
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fastssd.data.sources.left_out import (
    AGAIN,
    BESIDE,
    BROKEN,
    NOT_IMAGES,
    SPECIAL,
    LeftOut,
    unwanted,
)
from fastssd.errors import DataError

EXTENSIONS = (
    ".jpg",
    ".jpeg",
    ".jpe",
    ".png",
    ".bmp",
    ".gif",
    ".ppm",
    ".pgm",
    ".tif",
    ".tiff",
    ".webp",
)


@dataclass(slots=True)
class ClassFiles:
    """The images of one class in one split.

    Attributes:
        names: Paths from the root, sorted.
        nested: Those of them that lie in folders within the class's folder: how many.
        example: The first of the nested ones that was found; empty where there is none.
    """

    names: list[str] = field(default_factory=list)
    nested: int = 0
    example: str = ""


@dataclass(frozen=True, slots=True)
class _Place:
    """A folder of a class, or a link in one.

    Attributes:
        name: Its path from the root.
        real: A folder's own path without links; of a link, that of the folder which it lies in.
        owner: The class.
        is_nested: Whether what is in it lies in a folder within the class's folder.
    """

    name: str
    real: str
    owner: str
    is_nested: bool


class SplitTree:
    """The class folders of one split.

    Args:
        root: The source's folder.
        folder: The split's folder, as a path from the root; empty for the root itself.
        left_out: Where to note what is no image.
        skip: Paths from the root of folders that are other parts.

    Attributes:
        folders: The names of the class folders, and whether each is a link.
        claims: The class of every folder that was listed, by its path without links.
        outside: The links that lead out of the root, each as ``LINK -> TARGET``.
        num_loose: Images that lie in no class folder.

    Raises:
        DataError: If the folder cannot be listed.
    """

    def __init__(
        self, root: Path, folder: str, left_out: LeftOut, skip: frozenset[str] = frozenset()
    ) -> None:
        self.folders: dict[str, bool] = {}
        self.claims: dict[str, str] = {}
        self.outside: list[str] = []
        self.num_loose = 0
        self._root = str(root)
        self._real_root = os.path.realpath(root)
        self._prefix = f"{folder}/" if folder else ""
        self._real = os.path.realpath(self._path(folder))
        self._left_out = left_out
        self._files: dict[str, ClassFiles] = {}
        self._links: deque[_Place] = deque()
        self._file_links: list[tuple[_Place, str]] = []  # with where each leads to
        self._linked: set[str] = set()  # the files that were taken through links, without links
        self._note_outside(folder, self._real)
        for entry in entries_of(self._path(folder)):
            name = self._prefix + entry.name
            if name in skip:
                continue
            if reason := unwanted(entry.name):
                left_out.add(reason, name)
            elif entry.is_dir():
                self.folders[entry.name] = entry.is_symlink()
            elif entry.is_symlink() and not Path(entry.path).exists():
                raise DataError(
                    f"{entry.path}: is a link that leads nowhere, perhaps to a class folder; mend "
                    "or remove it"
                )
            else:
                left_out.add(BESIDE if entry.is_file() else SPECIAL, name)
                self.num_loose += _is_image(entry.name)

    def list_images(self, classes: Sequence[str]) -> dict[str, ClassFiles]:
        """Return the images of each class that has a folder here.

        Every folder is listed once, and nothing is asked of a file that is no link: the listing
        says what it is.

        Raises:
            DataError: If a folder cannot be listed, or an image would be of two classes.
        """
        present = [name for name in classes if name in self.folders]
        self._files = {name: ClassFiles() for name in present}
        for name in present:
            real = self._real if self.folders[name] else f"{self._real}/{name}"
            place = _Place(self._prefix + name, real, name, is_nested=False)
            if self.folders[name]:
                self._links.append(place)
            else:
                self._walk(place)
        # Links last, so that images go by the names that they really have.
        self._links = deque(sorted(self._links, key=lambda link: link.name))
        while self._links:
            self._follow(self._links.popleft())
        self._take_file_links()
        for files in self._files.values():
            files.names.sort()
        return self._files

    def shared_with(self, other: "SplitTree") -> set[str]:
        """Return the folders and files, without links, that both splits have."""
        files = self._linked & other._linked
        files |= {file for file in self._linked if os.path.dirname(file) in other.claims}  # noqa: PTH120
        files |= {file for file in other._linked if os.path.dirname(file) in self.claims}  # noqa: PTH120
        return files | (self.claims.keys() & other.claims.keys())

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root

    def _walk(self, start: _Place) -> None:
        folders = [start]
        while folders:
            folder = folders.pop()
            if folder.real not in self.claims:
                self.claims[folder.real] = folder.owner
                folders.extend(reversed(self._list(folder)))
            elif self.claims[folder.real] == folder.owner:
                self._left_out.add(AGAIN, folder.name)
            else:
                raise _two_labels(folder.name, folder.owner, self.claims[folder.real])

    def _list(self, folder: _Place) -> list[_Place]:
        """Take the images of a folder, keep its links for later, and return its folders."""
        files = self._files[folder.owner]
        found: list[_Place] = []
        names = []
        for entry in entries_of(self._path(folder.name)):
            name = f"{folder.name}/{entry.name}"
            # The most frequent first: there may be a million.
            if entry.is_file(follow_symlinks=False) and _is_image(entry.name):
                names.append(name)
            elif reason := unwanted(entry.name):
                self._left_out.add(reason, name)
            elif entry.is_symlink():
                self._links.append(_Place(name, folder.real, folder.owner, folder.is_nested))
            elif entry.is_dir(follow_symlinks=False):
                real = f"{folder.real}/{entry.name}"
                found.append(_Place(name, real, folder.owner, is_nested=True))
            else:
                is_file = entry.is_file(follow_symlinks=False)
                self._left_out.add(NOT_IMAGES if is_file else SPECIAL, name)
        files.names.extend(names)
        if folder.is_nested and names:
            files.nested += len(names)
            files.example = files.example or names[0]
        return found

    def _follow(self, link: _Place) -> None:
        """Take the folder that a link leads to, or keep the link to a file for the end."""
        path = self._path(link.name)
        real = os.path.realpath(path)
        try:
            mode = os.stat(path).st_mode  # noqa: PTH116 - a path of text
        except OSError:
            if _is_image(link.name):  # damage, which is said when it cannot be read
                self._files[link.owner].names.append(link.name)
            else:
                self._left_out.add(BROKEN, link.name)
            return
        if stat.S_ISDIR(mode):
            if f"{link.real}/".startswith(f"{real.rstrip('/')}/"):
                self._left_out.add(AGAIN, link.name)  # a folder that the link itself lies in
                return
            self._note_outside(link.name, real)
            is_class = link.name == self._prefix + link.owner
            self._walk(_Place(link.name, real, link.owner, is_nested=not is_class))
        elif stat.S_ISREG(mode) and _is_image(link.name):
            self._file_links.append((link, real))
        else:
            self._left_out.add(NOT_IMAGES if stat.S_ISREG(mode) else SPECIAL, link.name)

    def _take_file_links(self) -> None:
        owners: dict[str, str] = {}  # the class that has a file already, behind another link
        for link, real in self._file_links:
            folder, _, file = real.rpartition("/")
            has_it = self.claims.get(folder) if _is_image(file) else None
            owner = has_it or owners.get(real)
            if owner is None:
                owners[real] = link.owner
                self._files[link.owner].names.append(link.name)
                self._note_outside(link.name, real)
            elif owner == link.owner:
                self._left_out.add(AGAIN, link.name)
            else:
                raise _two_labels(link.name, link.owner, owner)
        self._linked = set(owners)

    def _note_outside(self, link: str, real: str) -> None:
        if not f"{real}/".startswith(f"{self._real_root.rstrip('/')}/"):
            self.outside.append(f"{link} -> {real}")


def entries_of(folder: str) -> list[os.DirEntry[str]]:
    """Return what a folder holds, by name.

    Raises:
        DataError: If it cannot be listed.
    """
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(
            f"{folder}: cannot be listed: {error.strerror}; make it readable, or move it out of "
            "the source"
        ) from error


def _is_image(name: str) -> bool:
    return name.lower().endswith(EXTENSIONS) and not name.startswith(".")


def _two_labels(name: str, owner: str, other: str) -> DataError:
    return DataError(
        f"{name}: would be of the class {owner!r}, but is of the class {other!r} already: an image "
        "has one label; remove the link that leads to it"
    )
