"""Keyed random numbers: the published generator, uniform, and independent in every part."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastssd.core import counter_rng

# Random123 1.14, tests/kat_vectors, "philox4x32 10": counter, key, block.
RANDOM123_VECTORS = [
    (
        [0x00000000, 0x00000000, 0x00000000, 0x00000000],
        [0x00000000, 0x00000000],
        [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8],
    ),
    (
        [0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF],
        [0xFFFFFFFF, 0xFFFFFFFF],
        [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD],
    ),
    (
        [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
        [0xA4093822, 0x299F31D0],
        [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
    ),
]

NUM_DRAWS = 20_000
# Of NUM_DRAWS independent pairs, a correlation beyond this has odds of about 1 in 2 million.
CORRELATION_LIMIT = 5 / np.sqrt(NUM_DRAWS)

USE = {"seed": 3, "stream": "features", "sample": 0, "view": 7, "field": 2}


def numbers(*, seed, stream, sample, view, field, count=1):
    samples = np.arange(NUM_DRAWS) + sample
    return counter_rng.uniforms(
        seed, stream, samples, np.full(NUM_DRAWS, view), field=field, count=count
    )


@pytest.mark.parametrize("philox", [counter_rng.philox4x32, counter_rng.philox_in_numpy])
@pytest.mark.parametrize(("counter", "key", "block"), RANDOM123_VECTORS)
def test_philox_gives_the_published_blocks(philox, counter, key, block):
    counters = np.array([counter], dtype=np.uint32)

    found = philox(counters, key[0] | key[1] << 32)

    assert found.tolist() == [block]
    assert found.dtype == np.uint32


def test_philox_gives_the_same_blocks_with_and_without_native_kernels():
    counters = np.random.default_rng(0).integers(0, 2**32, (1000, 8), dtype=np.uint32)[:, ::2]

    found = counter_rng.philox4x32(counters, 0xFEDCBA9876543210)

    np.testing.assert_array_equal(found, counter_rng.philox_in_numpy(counters, 0xFEDCBA9876543210))


def test_philox_treats_each_counter_of_a_batch_alone():
    counters = np.array([vector[0] for vector in RANDOM123_VECTORS], dtype=np.uint32)

    batch = counter_rng.philox4x32(counters, 0x0123456789ABCDEF)

    alone = [counter_rng.philox4x32(counters[i : i + 1], 0x0123456789ABCDEF)[0] for i in range(3)]
    np.testing.assert_array_equal(batch, alone)


@pytest.mark.parametrize(
    "change",
    [{"seed": 4}, {"stream": "distill"}, {"sample": NUM_DRAWS}, {"view": 8}, {"field": 3}],
    ids=lambda change: next(iter(change)),
)
def test_numbers_for_another_use_are_unrelated(change):
    one = numbers(**USE)[:, 0]

    other = numbers(**(USE | change))[:, 0]

    assert abs(np.corrcoef(one, other)[0, 1]) < CORRELATION_LIMIT
    assert np.mean(one == other) < 1e-3


def test_views_that_differ_only_above_32_bits_are_unrelated():
    one = numbers(**USE)[:, 0]

    other = numbers(**(USE | {"view": 7 + (1 << 32)}))[:, 0]

    assert abs(np.corrcoef(one, other)[0, 1]) < CORRELATION_LIMIT


def test_seeds_0_and_1_share_no_shifted_stream():
    one = numbers(**(USE | {"seed": 0}), count=4).ravel()
    other = numbers(**(USE | {"seed": 1}), count=4).ravel()

    # 80,000 numbers of 2**32 each meet in about 1.5 by chance.
    assert len(np.intersect1d(one, other)) < 15


def test_numbers_of_one_draw_are_unrelated_to_each_other():
    columns = numbers(**USE, count=9)

    correlations = np.corrcoef(columns, rowvar=False)[np.triu_indices(9, k=1)]

    assert np.abs(correlations).max() < CORRELATION_LIMIT


def test_fields_do_not_run_into_each_other():
    of_fields = [
        counter_rng.uniforms(0, "features", [5], [6], field=field, count=400).ravel()
        for field in range(4)
    ]

    for one, other in itertools.combinations(of_fields, 2):
        assert len(np.intersect1d(one, other)) == 0


def test_numbers_are_uniform():
    values = numbers(**USE, count=5).ravel()

    counts = np.histogram(values, bins=64, range=(0, 1))[0]
    expected = len(values) / 64
    chi_square = np.sum((counts - expected) ** 2) / expected
    # 63 degrees of freedom: mean 63, deviation 11.2; odds of more than 6 deviations < 1e-7.
    assert chi_square < 63 + 6 * np.sqrt(2 * 63)
    assert values.min() >= 0
    assert values.max() < 1
    assert values.dtype == np.float64


def test_the_largest_bits_stay_below_one(monkeypatch):
    monkeypatch.setattr(
        counter_rng, "philox4x32", lambda counters, key: np.full_like(counters, 0xFFFFFFFF)
    )

    assert counter_rng.uniforms(0, "s", [0], [0], field=0, count=1)[0, 0] < 1


@settings(deadline=None)
@given(
    seed=st.integers(0, 2**31),
    draws=st.lists(
        st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**63 - 1)), min_size=1, max_size=8
    ),
    field=st.integers(0, 2**16 - 1),
    count=st.integers(1, 11),
)
def test_a_draw_has_the_same_numbers_in_any_batch_and_however_many_are_asked(
    seed, draws, field, count
):
    samples, views = zip(*draws, strict=True)

    batch = counter_rng.uniforms(seed, "s", samples, views, field=field, count=count)

    for row, (sample, view) in enumerate(draws):
        alone = counter_rng.uniforms(seed, "s", [sample], [view], field=field, count=count + 5)
        np.testing.assert_array_equal(batch[row], alone[0, :count])


def test_several_fields_at_once_are_each_what_they_are_alone():
    draws = (0, "s", [3, 2**32 - 1], [7, 2**40])

    together = counter_rng.uniforms_by_field(*draws, fields=[0, 9, 2**16 - 1], count=5)

    for field, found in zip([0, 9, 2**16 - 1], together, strict=True):
        np.testing.assert_array_equal(found, counter_rng.uniforms(*draws, field=field, count=5))


def test_no_draws_have_no_numbers():
    empty = np.empty(0, dtype=np.int64)

    assert counter_rng.uniforms(0, "s", empty, empty, field=0, count=4).shape == (0, 4)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("a", "b"), ("ab",)),
        (("a", "b"), ("b", "a")),
        ((1,), ("1",)),
        ((1, 23), (12, 3)),
        ((0, "features"), (1, "features")),
    ],
)
def test_keys_depend_on_every_part(one, other):
    assert counter_rng.key_of(*one) != counter_rng.key_of(*other)


def test_keys_have_64_bits_all_in_use():
    keys = [counter_rng.key_of(number) for number in range(200)]

    assert all(0 <= key < 2**64 for key in keys)
    assert np.bitwise_or.reduce(np.array(keys, dtype=np.uint64)) == np.uint64(2**64 - 1)
    assert np.bitwise_and.reduce(np.array(keys, dtype=np.uint64)) == 0


def test_a_generator_starts_afresh_at_each_call():
    first = counter_rng.generator(0, "order", 3).permutation(100)

    again = counter_rng.generator(0, "order", 3).permutation(100)
    other = counter_rng.generator(0, "order", 4).permutation(100)

    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
