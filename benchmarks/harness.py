"""What every benchmark shares: cases run in turns, rows with ratios, a table, JSON and a figure.

A benchmark is a script of this folder, `python benchmarks/NAME.py [--data DIR] [--json FILE]`:

    benchmark = Benchmark("loader", "Images a second of whole loaders, side by side.")
    options = benchmark.parser().parse_args(arguments)
    values = interleaved([Case("fastssd", run), Case("FFCV", run_ffcv)], repeats=options.repeats)
    rows = rows_of(values, unit="images/s", against="FFCV")
    rows = judged(rows, [Target("fastssd", "FFCV", at_least=2.5)])
    benchmark.finish(rows, options)

The JSON is `{"environment": {...}, "rows": [...], "sections": {...}}`; `make_performance.py` makes
`docs/performance.md` of such files. A row's ratio says how many times better it is than the row
named in `against`; the row that others are compared with names itself.
"""

import argparse
import gc
import json
import os
import platform
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

OURS = "fastssd"
"""What the names of our own rows start with."""

_PACKAGES = (
    "fastssd",
    "torch",
    "torchvision",
    "numpy",
    "pillow",
    "ffcv",
    "nvidia-dali-cuda130",
    "kornia",
    "timm",
)


@dataclass(frozen=True, slots=True)
class Case:
    """One thing to measure.

    Attributes:
        name: As in the table; our own starts with ``fastssd``.
        run: Does one repeat and returns its value, in the unit of the table.
    """

    name: str
    run: Callable[[], float]


def interleaved(cases: Iterable[Case], *, repeats: int, warmup: int = 1) -> dict[str, list[float]]:
    """Run the cases in turns, A B C A B C, so that what disturbs the machine disturbs all alike.

    Args:
        cases: With different names.
        repeats: Of each case, after the warm-up.
        warmup: Turns before those, whose values are thrown away.

    Returns:
        The `repeats` values of each case, by its name, in the order of the cases.
    """
    cases = list(cases)
    values: dict[str, list[float]] = {case.name: [] for case in cases}
    if len(values) != len(cases):
        raise ValueError(f"cases of one name: {[case.name for case in cases]}")
    # What is imported by now is no part of what is measured: not for the garbage collector either,
    # which else walks through all modules in the middle of a case.
    gc.collect()
    gc.freeze()
    for turn in range(-warmup, repeats):
        for case in cases:
            value = case.run()
            if turn >= 0:
                values[case.name].append(value)
    return values


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One line of the result.

    Attributes:
        name: Unique in a benchmark; our own starts with ``fastssd``.
        value: The median of the repeats.
        unit: Of the value: ``images/s``, ``s``, ``MB``, ...
        spread: The quartiles of the repeats.
        ratio: How many times better than the row `against`, or None.
        against: That row's name, or None.
        section: The part of the table that the row stands in; a key of `finish`'s sections.
        note: A remark, shown in the table.
        extra: More entries of the JSON.
    """

    name: str
    value: float
    unit: str
    spread: tuple[float, float]
    ratio: float | None = None
    against: str | None = None
    section: str = ""
    note: str = ""
    extra: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return the row as the contract has it: one that is compared with none is 1 of itself."""
        compared = self.ratio is not None
        return {
            "name": self.name,
            "value": _rounded(self.value),
            "unit": self.unit,
            "spread": [_rounded(value) for value in self.spread],
            "ratio": _rounded(self.ratio) if compared else 1.0,
            "against": self.against if compared else self.name,
            "section": self.section,
            "note": self.note,
            **self.extra,
        }


def rows_of(
    values: Mapping[str, Sequence[float]],
    *,
    unit: str,
    against: str | None = None,
    higher_is_better: bool = True,
    section: str = "",
    notes: Mapping[str, str] | None = None,
) -> list[Row]:
    """Return a row for each case, with the median, the quartiles and the ratio of the medians.

    Args:
        values: Of `interleaved`.
        unit: Of all values.
        against: The case that the others are compared with.
        higher_is_better: Whether a ratio is value over value of `against`, or the inverse.
        section: Of the rows. It ends their names too (``fastssd, 4:2:0``): they are unique.
        notes: Remarks by the name of the case.
    """
    if against is not None and against not in values:
        raise ValueError(f"{against} is none of {', '.join(values)}")
    medians = {name: statistics.median(repeats) for name, repeats in values.items()}
    rows = []
    for name, repeats in values.items():
        ratio = None
        if against is not None and name != against:
            pair = (medians[name], medians[against])
            ratio = times_better(*pair, higher_is_better=higher_is_better)
        rows.append(
            Row(
                name=_in_section(name, section),
                value=medians[name],
                unit=unit,
                spread=quartiles(repeats),
                ratio=ratio,
                against=None if ratio is None else _in_section(str(against), section),
                section=section,
                note=(notes or {}).get(name, ""),
                extra={"repeats": len(repeats), "higher_is_better": higher_is_better},
            )
        )
    return rows


def times_better(value: float, other: float, *, higher_is_better: bool = True) -> float | None:
    """Return how many times better a value is than another; None where that has no meaning."""
    good, bad = (value, other) if higher_is_better else (other, value)
    return good / bad if bad > 0 else None


def quartiles(values: Sequence[float]) -> tuple[float, float]:
    """Return the first and third quartile, linear between the values; those of one value are it."""
    if len(values) == 1:
        return values[0], values[0]
    first, _, third = statistics.quantiles(values, n=4, method="inclusive")
    return first, third


@dataclass(frozen=True, slots=True)
class Target:
    """What a row shall reach: times better than another row, or a bound of its own value.

    Attributes:
        name: The row, without its section.
        against: The other row, without its section; None for a bound of the value itself.
        at_least: Times better than `against`, or the least value.
        at_most: The greatest value; needs no `against`. With one, the greatest share of its value.
        section: Of the row.
        other_section: Of the row `against`, where it is another one.
    """

    name: str
    against: str | None = None
    at_least: float | None = None
    at_most: float | None = None
    section: str = ""
    other_section: str | None = None


def judged(rows: Sequence[Row], targets: Iterable[Target]) -> list[Row]:
    """Return the rows with what became of their targets, under `targets` in the JSON.

    Each is `{"against", "reached", "at_least" or "at_most", "met"}`. A target whose row or
    `against` was not measured, because a peer is not installed, is left out.
    """
    by_name = {row.name: row for row in rows}
    found: dict[str, list[dict[str, Any]]] = {}
    for target in targets:
        row = by_name.get(_in_section(target.name, target.section))
        reached = None
        other = None
        if row is not None and target.against is None:
            reached = row.value
        elif row is not None and target.against is not None:
            section = target.section if target.other_section is None else target.other_section
            other = by_name.get(_in_section(target.against, section))
            if other is not None and target.at_most is not None:
                reached = row.value / other.value
            elif other is not None:
                higher = bool(row.extra.get("higher_is_better", True))
                reached = times_better(row.value, other.value, higher_is_better=higher)
        if row is None or reached is None:
            continue
        bound = {"at_least": target.at_least} if target.at_most is None else {}
        bound |= {} if target.at_most is None else {"at_most": target.at_most}
        met = (
            reached >= target.at_least
            if target.at_most is None and target.at_least is not None
            else target.at_most is not None and reached <= target.at_most
        )
        verdict = {"against": None if other is None else other.name, "reached": _rounded(reached)}
        found.setdefault(row.name, []).append(verdict | bound | {"met": met})
    return [
        replace(row, extra=row.extra | {"targets": found[row.name]}) if row.name in found else row
        for row in rows
    ]


class Benchmark:
    """One script: its options, and what becomes of its rows.

    Args:
        name: Of the file, without its ending.
        description: A sentence for the table, the figure and `--help`.
    """

    def __init__(self, name: str, description: str) -> None:
        self.name = name
        self.description = description

    def parser(self, *, repeats: int = 5) -> argparse.ArgumentParser:
        """Return a parser with the options that all benchmarks have, to add others to.

        They are `data` (folder or None), `json` and `figure` (files or None), `repeats`, and
        `quick`, with which a benchmark takes so little data that its figures mean nothing.
        """
        parser = argparse.ArgumentParser(
            prog=f"benchmarks/{self.name}.py", description=self.description
        )
        add = parser.add_argument
        add("--data", type=Path, metavar="DIR", help="measure on the images below this folder")
        add("--json", type=Path, metavar="FILE", help="write the result here")
        add(
            "--figure",
            type=Path,
            metavar="FILE",
            help="draw the result here, .svg or .png (default: beside the JSON, .svg)",
        )
        add("--repeats", type=int, default=repeats, metavar="N", help=f"of a case ({repeats})")
        add("--quick", action="store_true", help="little data: whether it runs, not how fast")
        return parser

    def finish(
        self,
        rows: Sequence[Row],
        options: argparse.Namespace,
        sections: Mapping[str, str] | None = None,
        **measured_on: object,
    ) -> int:
        """Print the rows, write the JSON that the options ask for, and the figure beside it.

        Args:
            rows: In the order of the table.
            options: Of `parser`.
            sections: What each section shows, a sentence or two, by its name.
            measured_on: More entries of the JSON's environment: images, sizes, threads.

        Returns:
            The exit code, 0.
        """
        names = [row.name for row in rows]
        if len(set(names)) != len(names):
            raise ValueError(f"rows of one name: {names}")
        sections = dict(sections or {})
        where = environment() | {"benchmark": self.name, "quick": bool(options.quick)} | measured_on
        from printed import print_rows

        print_rows(self.description, rows, sections)
        if options.json:
            content = {
                "environment": where,
                "description": self.description,
                "sections": sections,
                "rows": [row.as_json() for row in rows],
            }
            options.json.parent.mkdir(parents=True, exist_ok=True)
            options.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        figure = options.figure or (options.json and options.json.with_suffix(".svg"))
        if figure:
            from figure import draw

            draw([row.as_json() for row in rows], self.description, figure)
        return 0


def environment() -> dict[str, Any]:
    """Return what was measured on: processor, cores, device and versions, but no date."""
    import torch

    cuda = torch.cuda.is_available()
    return {
        "cpu": _cpu_name(),
        "cores": num_cores(),
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "platform": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: found for name in _PACKAGES if (found := _version(name))},
    }


def num_cores() -> int:
    """Return the processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")


def _in_section(name: str, section: str) -> str:
    return f"{name}, {section}" if section else name


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cpu_name() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
