"""How much memory this process may use: the machine's, or less in a container."""

import math
import os
from pathlib import Path, PurePosixPath

_CONTROL_GROUPS = Path("/sys/fs/cgroup")
_OWN_GROUPS = Path("/proc/self/cgroup")


def usable_memory() -> int:
    """Return the bytes of memory that this process and what it shares it with may fill.

    That is the machine's, or the least limit of the control groups that the process is in (Linux,
    version 1 or 2), within which its share of the file cache counts, too.
    """
    return int(min(_of_machine(), _of_groups()))


def _of_machine() -> float:
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def _of_groups() -> float:
    try:
        lines = _OWN_GROUPS.read_text().splitlines()
    except OSError:
        return math.inf
    least = math.inf
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if controllers == "":
            root, name = _CONTROL_GROUPS, "memory.max"
        elif "memory" in controllers.split(","):
            root, name = _CONTROL_GROUPS / "memory", "memory.limit_in_bytes"
        else:
            continue
        inside = PurePosixPath(group).relative_to("/")
        # In a container the path may be the host's: then the root is the container's own group.
        for part in (inside, *inside.parents):
            least = min(least, _limit(root / part / name))
    return least


def _limit(file: Path) -> float:
    try:
        return float(file.read_text())
    except (OSError, ValueError):  # not there, or "max"
        return math.inf
