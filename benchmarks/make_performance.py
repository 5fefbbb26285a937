r"""Write docs/performance.md and its figures from the results in docs/performance/.

Nothing is measured here and nothing left out: every row of every file stands on the page, and those
where fastssd loses, or misses a target, stand first.

    python benchmarks/make_performance.py [--results docs/performance] [--page docs/performance.md]
"""

import argparse
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from figure import draw
from harness import OURS
from printed import number

ROOT = Path(__file__).resolve().parents[1]
_ORDER = ["loader", "views", "samplers", "convert", "augment", "step", "epoch_time", "tables"]
_HEAD = """# Performance

Made by `python benchmarks/make_performance.py` from the JSON files in [performance/](performance);
do not edit. `make bench` measures again and makes it anew, but for `tables`, `whole_runs` and
`larger_than_memory`, which are run by hand. Every benchmark runs its peers side by side, on
one machine and in turns; values are medians, with quartiles. A ratio says how many times better a
row is than the one that it is compared with: above 1 is better, whatever the unit.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page and the figures."""
    parser = argparse.ArgumentParser(description="Make docs/performance.md from its JSON files")
    parser.add_argument("--results", type=Path, default=ROOT / "docs" / "performance")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "performance.md")
    options = parser.parse_args(arguments)
    results = read_results(options.results)
    if not results:
        raise SystemExit(f"{options.results}: no results; `make bench` measures")
    figures = {}
    for name, result in results.items():
        file = options.results / f"{name}.svg"
        draw(result["rows"], result.get("description", name), file)
        figures[name] = os.path.relpath(file, options.page.parent)
    options.page.write_text(page(results, figures), encoding="utf-8")
    return 0


def read_results(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the results by name, those of `make bench` first and in its order.

    Raises:
        SystemExit: If a file is not what a benchmark writes.
    """
    results = {}
    for file in sorted(folder.glob("*.json"), key=lambda file: (_place(file.stem), file.stem)):
        result = json.loads(file.read_text(encoding="utf-8"))
        problem = contract_problem(result)
        if problem:
            raise SystemExit(f"{file}: {problem}")
        results[file.stem] = result
    return results


def contract_problem(result: Any) -> str:  # noqa: ANN401 - whatever JSON holds
    """Return what a result has against the contract of the benchmarks' JSON; or nothing."""
    if not isinstance(result, Mapping) or not isinstance(result.get("environment"), Mapping):
        return "it has no environment"
    rows = result.get("rows")
    if not isinstance(rows, list) or not rows:
        return "it has no rows"
    names = [row.get("name") for row in rows if isinstance(row, Mapping)]
    if len(set(names)) != len(rows):
        return "its rows are not objects with names of their own"
    if not any(str(name).startswith(OURS) for name in names):
        return f"no row's name starts with {OURS}"
    for row in rows:
        spread = row.get("spread")
        numbers = [row.get("value"), *(spread if isinstance(spread, list) else [None])]
        if len(numbers) != 3 or not all(isinstance(each, int | float) for each in numbers):
            return f"row {row['name']!r} lacks a value or its spread"
        if not isinstance(row.get("unit"), str):
            return f"row {row['name']!r} lacks its unit"
        if not isinstance(row.get("ratio"), int | float):
            return f"row {row['name']!r} lacks its ratio"
        if row.get("against") not in names:
            return f"row {row['name']!r} is compared with {row.get('against')!r}, which is no row"
    return ""


def page(results: Mapping[str, Mapping[str, Any]], figures: Mapping[str, str]) -> str:
    """Return the page as Markdown.

    Args:
        results: By name, as the files have them.
        figures: The path of each one's figure, from the page.
    """
    parts = [_HEAD, *_targets(results), *_losses(results)]
    for name, result in results.items():
        parts += _benchmark(name, result, figures[name])
    return "\n".join(parts)


def _targets(results: Mapping[str, Mapping[str, Any]]) -> list[str]:
    lines = ["## Targets", "", "| what | reached | target | |", "| :-- | --: | --: | :-- |"]
    for row, target in targets_of(results):
        kind = "at_most" if "at_most" in target else "at_least"
        sign = "at most" if kind == "at_most" else "at least"
        what, unit = row["name"], f" {row['unit']}"
        if target["against"]:
            relation = "as a part of" if kind == "at_most" else "against"
            what, unit = f"{what}, {relation} {_short(target['against'], row)}", ""
            unit = "" if kind == "at_most" else "x"
        reached, bound = number(target["reached"]), f"{target[kind]:g}"
        verdict = "met" if target["met"] else "**missed**"
        lines.append(f"| {what} | {reached}{unit} | {sign} {bound}{unit} | {verdict} |")
    return [*lines, ""]


def _losses(results: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the part of the page that lists where fastssd is behind."""
    lines = ["## Where fastssd is behind", ""]
    for row, target in targets_of(results):
        if not target["met"]:
            kind = "at_most" if "at_most" in target else "at_least"
            than = f" against {_short(target['against'], row)}" if target["against"] else ""
            lines.append(
                f"- {row['name']}{than}: {number(target['reached'])}, where the target is "
                f"{kind.replace('_', ' ')} {target[kind]:g}."
            )
    for result in results.values():
        for row in result["rows"]:
            if row["name"].startswith(OURS) and row["ratio"] < 1:
                times, than = f"{row['ratio']:.2f}", _short(row["against"], row)
                lines.append(f"- {row['name']}: {times} times {than}.")
        lines += [f"- {peer['name']}: better than {best['name']}." for peer, best in ahead(result)]
    if len(lines) == 2:
        lines.append("Nowhere in these results: all ratios are above 1 and all targets met.")
    return [*lines, ""]


def ahead(result: Mapping[str, Any]) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """Yield the rows of others that are better than all of ours in their section and unit."""
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in result["rows"]:
        groups.setdefault((row.get("section", ""), row["unit"]), []).append(row)
    for rows in groups.values():
        ours = [row for row in rows if row["name"].startswith(OURS)]
        if not ours:
            continue
        sign = 1 if ours[0].get("higher_is_better", True) else -1
        best = max(ours, key=lambda row: sign * row["value"])
        for row in rows:
            if not row["name"].startswith(OURS) and sign * row["value"] > sign * best["value"]:
                yield row, best


def targets_of(
    results: Mapping[str, Mapping[str, Any]],
) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """Yield every target with its row."""
    for result in results.values():
        for row in result["rows"]:
            for target in row.get("targets", []):
                yield row, target


def _benchmark(name: str, result: Mapping[str, Any], figure: str) -> list[str]:
    environment = result["environment"]
    lines = [f"## {name}", "", _sentence(result.get("description", "")), ""]
    lines += [_measured_on(environment), "", f"![{name}]({figure})", ""]
    sections = result.get("sections") or {}
    for section in dict.fromkeys(row.get("section", "") for row in result["rows"]):
        rows = [row for row in result["rows"] if row.get("section", "") == section]
        lines += [f"### {section[:1].upper()}{section[1:]}", ""] if section else []
        lines += [sections[section], ""] if section in sections else []
        lines += ["| | median | quartiles | unit | times better | than |"]
        lines += ["| :-- | --: | --: | :-- | --: | :-- |", *(_line(row) for row in rows), ""]
        notes = [f"- {_bare(row['name'], row)}: {row['note']}." for row in rows if row.get("note")]
        lines += [*notes, ""] if notes else []
    return lines


def _sentence(text: str) -> str:
    return f"{text.rstrip('.')}." if text else ""


def _line(row: Mapping[str, Any]) -> str:
    low, high = row["spread"]
    name, compared = _bare(row["name"], row), row["against"] != row["name"]
    shown = f"**{name}**" if name.startswith(OURS) else name
    than = _short(row["against"], row) if compared else ""
    times = f"{row['ratio']:.2f}" if compared else ""
    spread = f"{number(low)} to {number(high)}"
    return f"| {shown} | {number(row['value'])} | {spread} | {row['unit']} | {times} | {than} |"


def _measured_on(environment: Mapping[str, Any]) -> str:
    """Return a sentence about the machine, the versions and the data."""
    device = environment.get("device", "cpu")
    machine = f"{environment.get('cores', '?')} cores of {environment.get('cpu', 'a processor')}"
    machine += "" if device == "cpu" else f", {device}"
    versions = ", ".join(f"{name} {v}" for name, v in environment.get("versions", {}).items())
    known = {"cpu", "cores", "device", "versions", "platform", "python", "benchmark", "quick"}
    rest = ", ".join(
        f"{k.replace('_', ' ')}: {v}" for k, v in environment.items() if k not in known
    )
    quick = " **A quick run: these figures mean nothing.**" if environment.get("quick") else ""
    parts = [machine, f"Python {environment.get('python', '?')}", versions, rest]
    return "Measured on " + "; ".join(part for part in parts if part) + "." + quick


def _bare(name: str, row: Mapping[str, Any]) -> str:
    section = row.get("section", "")
    return name.removesuffix(f", {section}") if section else name


def _short(against: str, row: Mapping[str, Any]) -> str:
    return _bare(against, row)


def _place(name: str) -> int:
    return _ORDER.index(name) if name in _ORDER else len(_ORDER)


if __name__ == "__main__":
    sys.exit(main())
