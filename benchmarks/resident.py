"""The resident memory of this process, and what is free, as Linux counts them."""

from pathlib import Path

from fastssd.data.storage.host_memory import usable_memory

_STATUS, _FORGET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_MACHINE = Path("/proc/meminfo")


def resident_bytes() -> int:
    """Return what is resident now."""
    return _status("VmRSS")


def peak_bytes() -> int:
    """Return the most that was resident since the start, or since `forget_peak`."""
    return _status("VmHWM")


def forget_peak() -> None:
    """Let the peak start again at what is resident now."""
    _FORGET.write_text("5", encoding="ascii")


def free_bytes() -> int:
    """Return what may be allocated: the machine's free memory, or a container's limit if less."""
    return min(_kilobytes(_MACHINE, "MemAvailable"), usable_memory())


def _status(key: str) -> int:
    return _kilobytes(_STATUS, key)


def _kilobytes(file: Path, key: str) -> int:
    """Return the bytes that a line of a file says in kilobytes."""
    with file.open(encoding="ascii") as lines:
        found = dict(line.split(":", 1) for line in lines)
    return 1024 * int(found[key].split()[0])
