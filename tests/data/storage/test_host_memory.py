"""Limits of control groups, as Linux shows them in version 1 and 2 and in containers."""

import os

import pytest

from fastssd.data.storage import host_memory

MACHINE = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """Makes control groups: what /proc/self/cgroup says, and files with limits."""

    def make(own, **limits):
        (tmp_path / "own").write_text(own)
        for path, limit in limits.items():
            file = tmp_path / "root" / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(limit)
        monkeypatch.setattr(host_memory, "_OWN_GROUPS", tmp_path / "own")
        monkeypatch.setattr(host_memory, "_CONTROL_GROUPS", tmp_path / "root")
        return host_memory.usable_memory()

    return make


def test_without_groups_it_is_the_machines(tmp_path, monkeypatch):
    monkeypatch.setattr(host_memory, "_OWN_GROUPS", tmp_path / "none")

    assert host_memory.usable_memory() == MACHINE


@pytest.mark.parametrize(
    ("own", "limits", "expected"),
    [
        ("0::/\n", {"memory.max": "1000000\n"}, 1_000_000),
        ("0::/\n", {"memory.max": "max\n"}, MACHINE),
        ("0::/a/b\n", {"a/memory.max": "3000\n", "a/b/memory.max": "max\n"}, 3000),
        ("0::/a/b\n", {"a/memory.max": "3000\n", "a/b/memory.max": "2000\n"}, 2000),
        (
            "5:cpu,cpuacct:/x\n4:memory:/job\n1:name=systemd:/y\n0::/\n",
            {"memory/job/memory.limit_in_bytes": "5000\n", "x/memory.max": "1\n"},
            5000,
        ),
        ("4:memory:/host/path\n", {"memory/memory.limit_in_bytes": "7000\n"}, 7000),
        ("4:memory:/\n", {"memory/memory.limit_in_bytes": "9223372036854771712\n"}, MACHINE),
        ("0::/../other:name\n", {"memory.max": "8000\n"}, 8000),
    ],
)
def test_the_least_limit_counts(groups, own, limits, expected):
    assert groups(own, **limits) == expected
