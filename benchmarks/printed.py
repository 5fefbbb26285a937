"""A benchmark's rows as a person sees them: tables, and a line for each target."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from harness import OURS, Row
from rich.console import Console
from rich.table import Table


def print_rows(title: str, rows: Sequence[Row], sections: Mapping[str, str]) -> None:
    """Print a table, a part for each section, and a line for each target."""
    console = Console(soft_wrap=True, width=None if sys.stdout.isatty() else 140)
    console.print(title, style="bold", highlight=False)
    for section in dict.fromkeys(row.section for row in rows):
        table = Table(title=section or None, title_justify="left", caption_justify="left")
        table.caption = sections.get(section)
        table.add_column("", overflow="fold")
        for heading in ("median", "quartiles", "unit", "times better", "than"):
            table.add_column(heading, justify="left" if heading in ("unit", "than") else "right")
        for row in (row for row in rows if row.section == section):
            low, high = row.spread
            name = row.name.removesuffix(f", {section}")
            than = (row.against or "").removesuffix(f", {section}")
            cells = [name, number(row.value), f"{number(low)} to {number(high)}", row.unit]
            cells += ["" if row.ratio is None else f"{row.ratio:.2f}", than]
            table.add_row(*cells, style="bold" if row.name.startswith(OURS) else None)
            if row.note:
                table.add_row(f"  {row.note}", style="dim")
        console.print(table)
    for row in rows:
        for target in row.extra.get("targets", []):
            console.print(target_line(row.name, row.unit, target), highlight=False)


def target_line(name: str, unit: str, target: Mapping[str, Any]) -> str:
    """Return a sentence about one target of a row."""
    kind = "at_most" if "at_most" in target else "at_least"
    bound, reached = target[kind], target["reached"]
    verdict = "met" if target["met"] else "MISSED"
    word = "at most" if kind == "at_most" else "at least"
    if target["against"] is None:
        return f"{verdict}: {name}: {number(reached)} {unit}, target {word} {bound:g}"
    times = "of" if kind == "at_most" else "times better than"
    return f"{verdict}: {name}: {reached:.3g} {times} {target['against']}, target {word} {bound:g}"


def number(value: float) -> str:
    """Return a value with three significant digits, at least its whole part."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"
