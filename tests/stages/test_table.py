import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastssd.data.draws import Draws, pack_view
from fastssd.errors import DataError
from fastssd.stages import table as tables
from fastssd.stages.table import DistinctDraws, EveryView, Table

pairs = st.lists(
    st.tuples(st.integers(0, 30), st.integers(0, 5), st.integers(0, 40)), min_size=1, max_size=60
)


def draws_of(triples) -> Draws:
    samples, epochs, repetitions = np.array(triples, dtype=np.int64).T
    return Draws(samples, pack_view(epochs, repetitions))


@given(num_samples=st.integers(1, 20), num_views=st.integers(1, 9))
def test_every_view_of_every_sample_has_the_row_that_says_so(num_samples, num_views):
    rows = EveryView(num_samples, num_views)
    found = set(zip(rows.draws.samples.tolist(), rows.draws.views.tolist(), strict=True))
    assert found == {(s, v) for s in range(num_samples) for v in range(num_views)}
    assert rows.of(rows.draws).tolist() == list(range(num_samples * num_views))


@pytest.mark.parametrize("view", [-1, 3])
def test_a_view_beyond_the_tables_is_refused(view):
    with pytest.raises(KeyError, match="3 views"):
        EveryView(5, 3).of(Draws(np.array([0, 1]), np.array([0, view])))


@given(pairs)
def test_distinct_draws_have_one_row_each_and_every_draw_finds_its_own(triples):
    draws = draws_of(triples)
    rows = DistinctDraws(draws)
    assert len(rows.draws) == len(set(triples))
    found = rows.draws[rows.of(draws)]
    np.testing.assert_array_equal(found.samples, draws.samples)
    np.testing.assert_array_equal(found.views, draws.views)


@given(pairs, st.tuples(st.integers(0, 30), st.integers(0, 5), st.integers(0, 40)))
def test_a_draw_of_another_plan_is_refused(triples, other):
    rows = DistinctDraws(draws_of(triples))
    if other in triples:
        rows.of(draws_of([other]))
    else:
        with pytest.raises(KeyError, match="another plan"):
            rows.of(draws_of([other]))


@pytest.fixture
def finished(tmp_path):
    """Return a finished table's directory and rows: 6 draws, 3 classes, float16."""
    rows = EveryView(3, 2)
    tables.create(tmp_path, rows, num_classes=3, dtype="float16")
    logits = tables.open_for_writing(tmp_path)
    logits[:] = np.arange(18).reshape(6, 3) / 4
    logits.flush()
    tables.finish(tmp_path, {"classes": 3, "dtype": "float16", "seed": 0})
    return tmp_path, rows


def test_reading_returns_the_draws_logits_in_float32(finished):
    logits = Table(*finished).read(Draws(np.array([2, 0]), np.array([1, 0])))
    assert logits.dtype == np.float32
    np.testing.assert_array_equal(logits, [[3.75, 4.0, 4.25], [0, 0.25, 0.5]])


def test_making_a_table_anew_leaves_it_unfinished_until_the_end(finished):
    directory, rows = finished
    tables.create(directory, rows, num_classes=3, dtype="float16")
    with pytest.raises(DataError, match=r"manifest\.json"):
        Table(directory, rows)


@pytest.mark.parametrize("damage", ["truncated", "garbage", "missing", "shape"])
def test_damaged_logits_are_an_error_that_names_the_file(finished, damage):
    directory, rows = finished
    file = directory / "logits.npy"
    content = file.read_bytes()
    if damage == "truncated":
        file.write_bytes(content[:-5])
    elif damage == "garbage":
        file.write_bytes(b"no array at all")
    elif damage == "missing":
        file.unlink()
    else:
        np.save(file, np.zeros((6, 4), np.float16))
    with pytest.raises(DataError, match=r"logits\.npy.*delete the table's folder"):
        Table(directory, rows)


@pytest.mark.parametrize("text", ["", "[1, 2]", '{"classes": 3}', "\x00"])
def test_a_damaged_manifest_is_an_error_that_names_it(finished, text):
    directory, rows = finished
    (directory / "manifest.json").write_text(text)
    with pytest.raises(DataError, match=r"manifest\.json"):
        Table(directory, rows)


def test_a_table_of_something_else_is_refused_naming_what_differs(finished):
    directory, _ = finished
    found = json.loads((directory / "manifest.json").read_text())
    tables.check_manifest(directory, {**found, "versions": {"torch": "other"}})
    with pytest.raises(DataError, match=r"seed is 0, not 1; decoder is None, not 'dali'; delete"):
        tables.check_manifest(directory, {**found, "seed": 1, "decoder": "dali"})
