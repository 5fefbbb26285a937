"""What a source holds that is no image of it: one list for all sources, said before any work."""

from dataclasses import dataclass, field

HIDDEN = "hidden files and folders"
SYSTEM = "thumbnails, trash and other things of programs"
SPECIAL = "pipes, sockets and devices, which are never opened"
NOT_IMAGES = "files that are not named like images"
BESIDE = "files in no class folder"
AGAIN = "links to what is listed already"
BROKEN = "links that lead nowhere"
UNUSED = "parts that are no split"
MEMBERS = "links and special members of shards"

_SYSTEM_NAMES = frozenset(
    {
        "@eadir",  # Synology's thumbnails
        "@recycle",
        "@recently-snapshot",
        "#recycle",
        "#snapshot",
        "$recycle.bin",
        "system volume information",
        "found.000",
        "lost+found",
        "__macosx",
        "__pycache__",
        "thumbs.db",
        "ehthumbs.db",
        "desktop.ini",
        "thumbnails",
        "thumbs",
    }
)
_SHOWN = 3


def unwanted(name: str) -> str | None:
    """Return why nothing of this name is taken, whatever it holds; None for other names."""
    if name.startswith("."):
        return HIDDEN
    return SYSTEM if name.lower() in _SYSTEM_NAMES else None


@dataclass(slots=True)
class LeftOut:
    """What was left out, by kind.

    Attributes:
        counts: Things by kind.
        examples: The first names of each kind.
    """

    counts: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def add(self, kind: str, name: str, count: int = 1) -> None:
        """Note a thing that is left out, or several of one name."""
        self.counts[kind] = self.counts.get(kind, 0) + count
        examples = self.examples.setdefault(kind, [])
        if len(examples) < _SHOWN:
            examples.append(name)

    def lines(self) -> list[str]:
        """Return a line for each kind: how many, and the first names."""
        return [
            f"left out: {kind}: {count:,} ({', '.join(self.examples[kind])}"
            f"{', ...' if count > len(self.examples[kind]) else ''})"
            for kind, count in self.counts.items()
        ]
