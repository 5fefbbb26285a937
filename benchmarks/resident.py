"""The resident memory of this process, as Linux counts it."""

from pathlib import Path

_STATUS, _FORGET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def resident_bytes() -> int:
    """Return what is resident now."""
    return _status("VmRSS")


def peak_bytes() -> int:
    """Return the most that was resident since the start, or since `forget_peak`."""
    return _status("VmHWM")


def forget_peak() -> None:
    """Let the peak start again at what is resident now."""
    _FORGET.write_text("5", encoding="ascii")


def _status(key: str) -> int:
    with _STATUS.open(encoding="ascii") as file:
        lines = dict(line.split(":", 1) for line in file)
    return 1024 * int(lines[key].split()[0])
