"""What the figures draw, and that none of their texts overlap."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from fastssd.evaluation.figures import (
    accuracy_by_frequency,
    bin_means,
    class_histogram,
    frequency_bins,
    learning_curves,
)
from fastssd.evaluation.results import Metrics

SEVEN = ["CE", "LWS", "SSD I", "SSD II", "SSD III-hard", "SSD III-soft", "SSD IV"]
LONG_TAILS = {
    "digits": [128, 106, 88, 73, 61, 50, 42, 35, 29, 24],
    "two sizes": [500] * 5 + [5] * 5,
    "balanced": [40] * 10,
    "narrow": [61, 63, 66, 68, 70],
    "one class": [7],
    "an empty class": [12, 3, 0],
    "hundred": [int(500 * 0.01 ** (c / 99)) for c in range(100)],
    "iNaturalist": np.random.default_rng(0).permutation(
        np.clip((np.random.default_rng(1).pareto(0.9, 8142) * 12 + 2).astype(int), 2, 1000)
    ),
}


def rows_for(counts, names=SEVEN):
    generator = np.random.default_rng(0)
    return [
        {
            "name": name,
            "head": "classifier",
            "split": "test",
            "checkpoint": "last",
            "num_images": 3 * len(counts),
            "per_class": (100 * generator.random(len(counts))).tolist(),
        }
        for name in names
    ]


def overlapping_texts(figure):
    """Return pairs of visible texts whose boxes overlap, and texts that leave the picture."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    # Matplotlib keeps ticks beyond the limits of an axis, and does not draw them.
    undrawn = {
        label
        for axes in figure.axes
        for axis in (axes.xaxis, axes.yaxis)
        for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks())
        if not min(axis.get_view_interval()) <= tick.get_loc() <= max(axis.get_view_interval())
        for label in (tick.label1, tick.label2)
    }
    texts = [
        text
        for text in set(figure.findobj(Text)) - undrawn
        # The box of slanted text is far larger than the text.
        if text.get_visible() and text.get_text() and text.get_rotation() in (0, 90)
    ]
    boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in texts]
    inside = figure.bbox.padded(1)
    outside = [
        text for text, box in boxes if not (inside.contains(*box.min) and inside.contains(*box.max))
    ]
    pairs = [
        (a, b)
        for (a, box), (b, other) in itertools.combinations(boxes, 2)
        if box.padded(-1).overlaps(other.padded(-1))
    ]
    return pairs + outside


@pytest.mark.parametrize("counts", LONG_TAILS.values(), ids=LONG_TAILS)
def test_no_text_of_the_histogram_overlaps_another(counts):
    names = [f"class number {label}" for label in range(len(counts))]

    assert overlapping_texts(class_histogram(counts, names)) == []


@pytest.mark.parametrize("counts", LONG_TAILS.values(), ids=LONG_TAILS)
def test_no_text_of_seven_accuracy_lines_overlaps_another(counts):
    assert overlapping_texts(accuracy_by_frequency(rows_for(counts), counts)) == []


def test_short_names_stand_upright_below_their_bars():
    figure = class_histogram([5, 50, 10], ["ant", "bee", "cat"])

    (axes,) = figure.axes
    labels = [label.get_text() for label in axes.get_xticklabels()]
    assert labels == ["bee", "cat", "ant"]
    assert [bar.get_height() for bar in axes.patches] == [50, 10, 5]


def test_seven_lines_differ_in_colour_and_in_marker():
    counts = LONG_TAILS["digits"]

    lines = accuracy_by_frequency(rows_for(counts), counts).axes[0].get_lines()

    lines = [line for line in lines if line.get_marker() != "None"]
    assert len({line.get_color() for line in lines}) == 7
    assert len({line.get_marker() for line in lines}) == 7


def test_fourteen_lines_are_still_told_apart():
    counts = LONG_TAILS["digits"]
    names = [f"method {index}" for index in range(14)]

    lines = accuracy_by_frequency(rows_for(counts, names), counts).axes[0].get_lines()

    looks = {
        (line.get_color(), line.get_linestyle()) for line in lines if line.get_marker() != "None"
    }
    assert len(looks) == 14


@given(st.lists(st.integers(0, 40), min_size=1, max_size=200), st.integers(1, 12))
def test_bins_hold_every_class_once_in_order_of_size_and_split_no_size(counts, max_bins):
    counts = np.array(counts)

    bins = frequency_bins(counts, max_bins=max_bins)

    assert sorted(np.concatenate(bins)) == list(range(len(counts)))
    assert all(len(members) for members in bins)
    assert len(bins) <= max_bins
    for larger, smaller in itertools.pairwise(bins):
        assert counts[larger].min() > counts[smaller].max()


def test_bins_of_distinct_sizes_hold_about_as_many_classes_each():
    bins = frequency_bins(np.arange(1, 1201), max_bins=12)

    assert {len(members) for members in bins} <= {99, 100, 101}
    assert len(bins) == 12


def test_a_bin_is_the_mean_of_its_tested_classes():
    bins = [np.array([0, 2]), np.array([1]), np.array([3])]

    means = bin_means([10.0, 40.0, None, None], bins)

    np.testing.assert_array_equal(means, [10.0, 40.0, np.nan])


def test_a_loss_that_is_not_finite_leaves_a_gap(make):
    losses = {1: 2.0, 2: float("nan"), 3: float("inf"), 4: 1.0}
    stage = Metrics(
        train=tuple(make.train_line(step, loss) for step, loss in losses.items()), evaluation=()
    )

    figure = learning_curves({"1-features": stage})

    (line,) = figure.axes[0].get_lines()
    np.testing.assert_array_equal(line.get_xdata(), [1, 2, 3, 4])
    np.testing.assert_array_equal(line.get_ydata(), [2.0, np.nan, np.nan, 1.0])


def test_long_curves_are_averaged_and_keep_their_gaps(make):
    losses = [float("nan") if step == 500 else 3.0 for step in range(1000)]
    stage = Metrics(
        train=tuple(make.train_line(step, loss) for step, loss in enumerate(losses)), evaluation=()
    )

    (line,) = learning_curves({"1-features": stage}).axes[0].get_lines()

    values = np.asarray(line.get_ydata())
    assert len(values) == 200
    assert np.isnan(values).sum() == 1
    assert set(values[~np.isnan(values)]) == {3.0}


def test_groups_that_are_absent_are_not_in_the_legend(make):
    stage = Metrics(
        train=(make.train_line(1, 1.0),),
        evaluation=(make.evaluation_line(10, 30.0), make.evaluation_line(20, 40.0)),
    )

    figure = learning_curves({"1-features": stage, "2-balance": stage})

    labels = [text.get_text() for text in figure.axes[1].get_legend().get_texts()]
    assert labels == [
        "training: classification",
        "val, classifier: overall",
        "val, classifier: many",
        "val, classifier: medium",
    ]
    assert overlapping_texts(figure) == []


def test_a_class_mean_that_differs_from_overall_is_the_thick_line(make):
    line = make.evaluation_line(10, 30.0)
    line["heads"]["classifier"]["class_mean"] = 20.0
    same = make.evaluation_line(10, 30.0)
    same["heads"]["classifier"]["class_mean"] = 30.0

    figure = learning_curves(
        {name: Metrics(train=(), evaluation=(each,)) for name, each in (("a", line), ("b", same))}
    )

    widths = [
        {drawn.get_label(): drawn.get_linewidth() for drawn in figure.axes[panel].get_lines()}
        for panel in (1, 3)
    ]
    assert [max(lines, key=lines.get) for lines in widths] == [
        "val, classifier: class mean",
        "val, classifier: overall",
    ]
    assert "val, classifier: class mean" not in widths[1]
