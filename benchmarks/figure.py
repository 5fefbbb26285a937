"""The figure of a benchmark: a bar for each row, a panel for each section and unit."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from harness import OURS
from matplotlib.figure import Figure
from printed import number

_OURS, _OTHERS = "#2b6cb0", "#a0aec0"
_ROW_INCHES, _WIDTH_INCHES = 0.32, 8.0


def draw(rows: Sequence[Mapping[str, Any]], title: str, path: Path) -> None:
    """Write a figure of the rows as the JSON has them; lines are quartiles.

    Args:
        rows: Each with `name`, `value`, `unit`, `spread` and `section`.
        title: Above all.
        path: Its ending decides the format.
    """
    panels: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        panels.setdefault((row.get("section", ""), row["unit"]), []).append(row)
    heights = [len(panel) + 1.8 for panel in panels.values()]
    # A Figure without pyplot draws without a display.
    inches = (_WIDTH_INCHES, _ROW_INCHES * sum(heights) + 0.5)
    figure = Figure(figsize=inches, layout="constrained")
    axes = figure.subplots(len(panels), 1, height_ratios=heights, squeeze=False)
    figure.suptitle(title, fontsize=10)
    for axis, ((section, unit), panel) in zip(axes[:, 0], panels.items(), strict=True):
        names = [row["name"].removesuffix(f", {section}") for row in panel]
        values = [row["value"] for row in panel]
        colours = [_OURS if name.startswith(OURS) else _OTHERS for name in names]
        below = [max(0.0, row["value"] - row["spread"][0]) for row in panel]
        above = [max(0.0, row["spread"][1] - row["value"]) for row in panel]
        places = range(len(panel))
        axis.barh(places, values, xerr=[below, above], color=colours, ecolor="#4a5568")
        axis.set_yticks(places, names, fontsize=8)
        axis.invert_yaxis()
        for place, value, more in zip(places, values, above, strict=True):
            axis.text(value + more, place, f" {number(value)}", va="center", fontsize=8)
        axis.set_title(f"{section}: {unit}" if section else unit, fontsize=9, loc="left")
        axis.set_xlim(0, 1.15 * max((v + m for v, m in zip(values, above, strict=True))) or 1)
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(axis="x", labelsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Without the date and with fixed ids, the same rows give the same bytes.
    with mpl.rc_context({"svg.hashsalt": "fastssd"}):
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
