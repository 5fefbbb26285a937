import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastssd.core.class_frequency import effective_number, inverse_power

CIFAR100_LT = np.array([int(500 * 0.01 ** (c / 99)) for c in range(100)])
counts = st.lists(st.integers(0, 2000), min_size=1, max_size=20).filter(any).map(np.array)


@pytest.mark.parametrize(
    ("beta", "expected"),
    [
        (0.0, (1, 1, 1)),
        (0.9, (0.820, 0.825, 2.003)),
        (0.999, (0.0551, 0.4624, 4.345)),
        (0.9999, (0.0449, 0.4571, 4.378)),
        (0.999999, (0.0438, 0.4565, 4.382)),
    ],
)
def test_effective_numbers_are_the_published_ones_of_cifar100_lt(beta, expected):
    weights = effective_number(CIFAR100_LT, beta)

    for label, value in zip((0, 50, 99), expected, strict=True):
        assert weights[label] == pytest.approx(value, abs=0.6 * 10 ** -len(f"{value:g}"[2:]))
    assert weights.sum() == pytest.approx(100)


@given(counts=counts, beta=st.floats(0, 0.999999))
def test_effective_numbers_are_one_over_the_sum_of_a_geometric_series(counts, beta):
    # (1 - b**n) / (1 - b) = 1 + b + ... + b**(n-1)
    series = np.array([(beta ** np.arange(n)).sum() for n in counts])
    expected = np.divide(1, series, out=np.zeros(len(counts)), where=counts > 0)

    weights = effective_number(counts, beta)

    np.testing.assert_allclose(weights, expected * ((counts > 0).sum() / expected.sum()), rtol=1e-6)


@given(counts=counts, power=st.floats(0, 10))
def test_an_inverse_power_undoes_the_power_and_gives_an_empty_class_nothing(counts, power):
    weights = inverse_power(counts, power)

    np.testing.assert_allclose(weights * counts.astype(float) ** power, counts > 0, atol=1e-9)
    assert (weights[counts == 0] == 0).all()
