"""The figures of a report: class histogram, accuracy by class frequency, learning curves.

Drawn with Matplotlib's Agg canvas alone: no display, no global state. The colours are those of
Okabe and Ito, which colour-blind readers tell apart; markers and line styles repeat what they say.
"""

import io
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from numpy.typing import ArrayLike, NDArray

from fastssd.core.files import write_atomically, writing
from fastssd.core.untrusted import for_figure, for_terminal
from fastssd.errors import FastssdError
from fastssd.evaluation.results import Metrics
from fastssd.evaluation.shots import GROUPS, LIMITS, shot_groups
from fastssd.evaluation.tables import Row, row_labels

GROUP_COLOURS = {
    "many": "#0072B2",
    "medium": "#E69F00",
    "few": "#CC79A7",
    "overall": "#000000",
    "class_mean": "#D55E00",
}

_LINE_COLOURS = ("#000000", "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_LINE_STYLES = ("-", "--", ":", "-.")
_Line = tuple[NDArray[np.float64], NDArray[np.float64]]
_GRID = "#DDDDDD"
_NOTE = "#555555"
_MAX_NAMED_CLASSES = 24
_CHARACTERS_ALONG_X = 90
_MAX_CURVE_POINTS = 200
_MIN_IMAGES_PER_POINT = 60  # a standard error of 6 points at most
_DPI = 150
_FLOOR = 0.7  # of the log axis: a class of one image still shows


def write_figures(
    report: Mapping[str, Any], metrics: Mapping[str, Metrics], folder: Path
) -> tuple[list[Path], list[FastssdError]]:
    """Draw the figures of a report into a folder, as PNG.

    Args:
        report: As `fastssd.evaluation.report.build_report` returns it.
        metrics: By stage folder; stages without any have no learning curves.
        folder: Made if it is not there.

    Returns:
        The files written, and why others were not; no learning curves where no stage has metrics.

    Raises:
        DataError: If a file cannot be written.
    """
    figures: dict[str, Callable[[], Figure]] = {
        "class_histogram": lambda: class_histogram(report["train_counts"], report["classes"]),
        "accuracy_by_frequency": lambda: accuracy_by_frequency(
            report["rows"], report["train_counts"]
        ),
    }
    drawable = {name: stage for name, stage in metrics.items() if stage.train or stage.evaluation}
    if drawable:
        figures["learning_curves"] = lambda: learning_curves(drawable)
    with writing(folder):
        folder.mkdir(exist_ok=True)
    paths, problems = [], []
    for name, draw in figures.items():
        path = folder / f"{name}.png"
        try:
            picture = _png(draw())
        except Exception as error:  # whatever it fails of: the numbers are worth more
            reason = f"{type(error).__name__}: {error}"
            problems.append(FastssdError(f"{path} could not be drawn ({reason})"))
            continue
        write_atomically(path, picture)
        paths.append(path)
    return paths, problems


def _png(figure: Figure) -> bytes:
    picture = io.BytesIO()
    with warnings.catch_warnings():
        # A name in a script that the font lacks is drawn as boxes; nothing is wrong with the run.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(picture, format="png", dpi=_DPI)
    return picture.getvalue()


def class_histogram(train_counts: ArrayLike, names: Sequence[str]) -> Figure:
    """Draw the training images of each class, largest class first, on a log scale.

    Args:
        train_counts: (C,) integers.
        names: (C,) shown where there is room for them, that is for few classes.
    """
    counts = np.asarray(train_counts)
    order = np.argsort(-counts, kind="stable")
    num_classes = len(counts)
    named = num_classes <= _MAX_NAMED_CLASSES
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for group, members in shot_groups(counts[order]).items():
        if group in GROUPS and members.any():
            ranks = np.flatnonzero(members) + 1
            noun = "class" if len(ranks) == 1 else "classes"
            label = f"{group}, {LIMITS[group]}: {len(ranks):,} {noun}"
            if named:
                axes.bar(ranks, counts[order][members], color=GROUP_COLOURS[group], label=label)
            else:
                # One outline: thousands of separate bars take seconds and flicker.
                axes.stairs(
                    counts[order][members],
                    np.append(ranks, ranks[-1] + 1) - 0.5,
                    baseline=_FLOOR,
                    fill=True,
                    color=GROUP_COLOURS[group],
                    label=label,
                )
    axes.set_yscale("log")
    axes.set_ylim(_FLOOR, max(float(counts.max()), 1.0) * 2.0)
    axes.yaxis.set_major_formatter(FuncFormatter(_count_text))
    axes.set_xlim(0.4, num_classes + 0.6)
    if named:
        _name_bars(axes, counts[order], [_shortened(names[label]) for label in order])
    else:
        axes.set_xlabel("class, by rank of its training images")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.xaxis.set_major_formatter(FuncFormatter(_count_text))
    axes.set_ylabel("training images")
    present = counts[counts > 0]
    imbalance = f", imbalance {present.max() / present.min():,.4g}" if present.size else ""
    _finish(axes, f"{counts.sum():,} training images of {num_classes:,} classes{imbalance}")
    axes.grid(visible=False, axis="x")
    figure.legend(loc="outside lower center", ncols=len(GROUPS), frameon=False, fontsize=9)
    return figure


def frequency_bins(train_counts: ArrayLike, *, max_bins: int) -> list[NDArray[np.intp]]:
    """Return bins of classes of similar frequency, largest classes first.

    Args:
        train_counts: (C,) integers.
        max_bins: At most so many bins, of about as many classes each.

    Returns:
        For each bin the labels of its classes. Every class is in one bin, and classes of the same
        size are in the same.
    """
    counts = np.asarray(train_counts)
    order = np.argsort(-counts, kind="stable")
    sizes, starts = np.unique(-counts[order], return_index=True)
    # A class size belongs to the bin in which the middle of its classes falls.
    ends = np.append(starts[1:], len(counts))
    if len(sizes) <= max_bins:
        cuts = starts[1:]
    else:
        bins = ((starts + ends) / 2 * max_bins / len(counts)).astype(int)
        cuts = starts[1:][np.diff(bins) > 0]
    return list(np.split(order, cuts))


def accuracy_by_frequency(rows: Sequence[Row], train_counts: ArrayLike) -> Figure:
    """Draw each row's accuracy against the training images of the classes, many to few.

    A point is the mean accuracy of a bin of `frequency_bins` at the geometric mean of its sizes.
    The smaller the test set, the fewer the points, lest their noise hide the trend.
    """
    counts = np.asarray(train_counts)
    num_images = min(int(row["num_images"]) for row in rows)
    bins = frequency_bins(counts, max_bins=max(3, min(12, num_images // _MIN_IMAGES_PER_POINT)))
    centres = [float(np.exp(np.log(np.maximum(counts[members], 1)).mean())) for members in bins]
    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.add_subplot()
    for index, (label, row) in enumerate(zip(row_labels(rows), rows, strict=True)):
        axes.plot(
            centres,
            bin_means(row["per_class"], bins),
            label=for_figure(label),
            color=_LINE_COLOURS[index % len(_LINE_COLOURS)],
            marker=_MARKERS[index % len(_MARKERS)],
            linestyle=_LINE_STYLES[index // len(_LINE_COLOURS) % len(_LINE_STYLES)],
            linewidth=1.6,
            markersize=5,
        )
    _scale_frequencies(axes, centres)
    axes.set_ylim(0, 107)
    axes.set_yticks(range(0, 101, 20))
    axes.set_xlabel("training images of a class")
    axes.set_ylabel("accuracy, % (mean over classes)")
    sizes = sorted({len(members) for members in bins})
    per_point = f"{sizes[0]:,}" if len(sizes) == 1 else f"{sizes[0]:,} to {sizes[-1]:,}"
    noun = "class" if sizes == [1] else "classes"
    _finish(axes, f"Accuracy by class frequency ({per_point} {noun} a point)")
    axes.grid(visible=False, axis="x")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right upper", frameon=False)
    return figure


def bin_means(per_class: Sequence[float | None], bins: Sequence[NDArray[np.intp]]) -> list[float]:
    """Return the mean accuracy of each bin over its classes that have one, NaN where none has."""
    values = np.array([np.nan if value is None else value for value in per_class], dtype=float)
    means = []
    for members in bins:
        known = values[members][~np.isnan(values[members])]
        means.append(float(known.mean()) if known.size else float("nan"))
    return means


def learning_curves(metrics: Mapping[str, Metrics]) -> Figure:
    """Draw a row of panels for each stage folder: loss terms, training and evaluated accuracy.

    Where a loss is not finite its line has a gap.
    """
    figure = Figure(figsize=(11, 0.4 + 2.7 * len(metrics)), layout="constrained")
    panels = figure.subplots(len(metrics), 2, squeeze=False)
    for (loss_axes, accuracy_axes), (folder, stage) in zip(panels, metrics.items(), strict=True):
        _draw_losses(loss_axes, stage)
        _draw_accuracy(accuracy_axes, stage)
        _finish(loss_axes, f"{for_figure(folder)}: loss")
        _finish(accuracy_axes, f"{for_figure(folder)}: accuracy, %")
        for axes in (loss_axes, accuracy_axes):
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
            axes.xaxis.set_major_formatter(FuncFormatter(_step_text))
            if axes.lines:
                axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.03))
    for axes in panels[-1]:
        axes.set_xlabel("step")
    return figure


def _name_bars(axes: Axes, counts: NDArray[np.int64], names: Sequence[str]) -> None:
    """Write the counts above the bars and the names below them, slanted where they are long."""
    ranks = np.arange(1, len(counts) + 1)
    for rank, count in zip(ranks, counts, strict=True):
        axes.annotate(
            f"{count:,}",
            (rank, max(count, _FLOOR)),
            (0, 2),
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize=8 if len(counts) <= 14 else 6,
        )
    slanted = (max(map(len, names)) + 2) * len(names) > _CHARACTERS_ALONG_X
    axes.set_xticks(
        ranks,
        [for_figure(name) for name in names],
        rotation=40 if slanted else 0,
        ha="right" if slanted else "center",
    )
    axes.tick_params(axis="x", length=0, pad=2)


def _scale_frequencies(axes: Axes, centres: Sequence[float]) -> None:
    """Set a log axis from many to few, and mark where the shot groups of the paper's text end."""
    high, low = max(centres) * 1.25, min(centres) / 1.25
    ticks = [leading * 10.0**power for power in range(8) for leading in (1, 2, 5)]
    ticks = [tick for tick in ticks if low <= tick <= high]
    if len(ticks) < 2:
        ticks = sorted({float(round(centres[0])), float(round(centres[-1]))})
    axes.set_xscale("log")
    axes.set_xlim(high, low)
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(_count_text))
    # 100 is many and 20 is few: the lines stand beside the classes of that size.
    borders = (float("inf"), 99.5, 20.5, 0.0)
    for group, border, upper in zip(GROUPS, borders[1:], borders, strict=False):
        left, right = min(upper, high), max(border, low)
        if low < border < high:
            axes.axvline(border, color=_NOTE, linewidth=0.8, linestyle=(0, (2, 3)), zorder=0)
        if left > right and np.log(left / right) > 0.08 * np.log(high / low):
            axes.text(
                float(np.sqrt(left * right)),
                0.985,
                group,
                transform=axes.get_xaxis_transform(),
                ha="center",
                va="top",
                fontsize=8,
                color=_NOTE,
            )


def _draw_losses(axes: Axes, stage: Metrics) -> None:
    terms = list(dict.fromkeys(term for entry in stage.train for term in entry["losses"]))
    for index, term in enumerate(terms):
        steps, values = _series(stage.train, ("losses", term))
        axes.plot(
            steps,
            values,
            color=_LINE_COLOURS[index % len(_LINE_COLOURS)],
            linestyle=_LINE_STYLES[index % len(_LINE_STYLES)],
            linewidth=1.4,
            label=for_figure(term),
        )


def _draw_accuracy(axes: Axes, stage: Metrics) -> None:
    """Colours are groups; solid and dashed lines are evaluated heads, thin grey ones training."""
    tasks = list(dict.fromkeys(task for entry in stage.train for task in entry["accuracy"]))
    for index, task in enumerate(tasks):
        steps, values = _series(stage.train, ("accuracy", task, "overall"))
        axes.plot(
            steps,
            values,
            color="#888888",
            linewidth=1.0,
            linestyle=_LINE_STYLES[index % len(_LINE_STYLES)],
            label=f"training: {for_figure(task)}",
        )
    kinds = dict.fromkeys(
        (str(entry["split"]), str(head)) for entry in stage.evaluation for head in entry["heads"]
    )
    for index, (split, head) in enumerate(kinds):
        entries = [entry for entry in stage.evaluation if entry["split"] == split]
        lines = {
            group: _series(entries, ("heads", head, group))
            for group in ("class_mean", "overall", *GROUPS)
        }
        if np.isnan(lines["class_mean"][1]).all() or _same(lines["class_mean"], lines["overall"]):
            del lines["class_mean"]  # one line for one number
        first = next(iter(lines))
        for group, (steps, values) in lines.items():
            if np.isnan(values).all():
                continue
            axes.plot(
                steps,
                values,
                color=GROUP_COLOURS[group],
                linestyle=_LINE_STYLES[index % len(_LINE_STYLES)],
                linewidth=2.0 if group == first else 1.3,
                marker="." if len(steps) <= 12 else None,
                label=f"{for_figure(split)}, {for_figure(head)}: {group.replace('_', ' ')}",
            )
    axes.set_ylim(0, 102)


def _series(entries: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> _Line:
    """Return steps and values along a path of keys, averaged down to at most 200 points.

    A value that is absent or not finite is NaN, and so is any average that it enters.
    """
    values = []
    for entry in entries:
        value: Any = entry
        for key in keys:
            value = value.get(key) if isinstance(value, Mapping) else None
        values.append(np.nan if value is None else float(value))
    points = np.array([[entry["step"] for entry in entries], values], dtype=float)
    points[1, ~np.isfinite(points[1])] = np.nan
    if points.shape[1] > _MAX_CURVE_POINTS:
        parts = np.array_split(points, _MAX_CURVE_POINTS, axis=1)
        points = np.stack([part.mean(axis=1) for part in parts], axis=1)
    return points[0], points[1]


def _same(one: _Line, other: _Line) -> bool:
    return bool(np.array_equal(one[1], other[1], equal_nan=True))


def _finish(axes: Axes, title: str) -> None:
    axes.set_title(title, loc="left", fontsize=11)
    axes.grid(color=_GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _count_text(value: float, _position: int | None = None) -> str:
    return f"{value:,.0f}" if value >= 1 else ""


def _step_text(value: float, _position: int | None = None) -> str:
    return f"{value:,.0f}"


def _shortened(name: str) -> str:
    name = for_terminal(name)
    return name if len(name) <= 18 else f"{name[:15]}..."
