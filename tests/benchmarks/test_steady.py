"""Which batches count: a clock that the batches themselves turn."""

import pytest
import steady
from steady import Span


@pytest.fixture
def clock(monkeypatch):
    """Return what makes batches that take given seconds each, by the clock that is looked at."""
    now = [0.0]
    monkeypatch.setattr(steady.time, "perf_counter", lambda: now[0])

    def batches(seconds):
        for each in seconds:
            now[0] += each
            yield None

    return batches


def test_only_the_batches_in_the_middle_count(clock):
    span = Span(ahead=2, counted=3)

    assert span.total == 7
    assert span.seconds_per_batch(clock([90, 80, 1, 2, 6, 70, 60])) == 3


def test_batches_that_come_in_parts_count_alike(clock):
    span = Span(ahead=1, counted=2)

    assert span.of_parts(2).total == 2 * span.total
    assert span.of_parts(2).seconds_per_batch(clock([9, 9, 1, 2, 3, 4, 9, 9])) == 2.5


@pytest.mark.parametrize("missing", [1, 6])
def test_missing_batches_are_no_rate(clock, missing):
    span = Span(ahead=2, counted=3)

    with pytest.raises(ValueError, match=f"{7 - missing} batches came, where 7"):
        span.seconds_per_batch(clock([1] * (7 - missing)))


@pytest.mark.parametrize(("threads", "ahead", "counted"), [(0, 4, 10), (2, 4, 10), (16, 32, 64)])
def test_as_many_do_not_count_as_a_loader_has_in_flight(threads, ahead, counted):
    span = Span.of(threads, counted=10)

    assert (span.ahead, span.counted) == (ahead, counted)
    assert span.ahead >= 2 * threads  # PyTorch's DataLoader has so many
