"""The window's sums against float64 sums on the host."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pretend_processes import together
from torch.utils._python_dispatch import TorchDispatchMode

from fastssd.evaluation.shots import shot_groups
from fastssd.training.meter import Meter

COUNTS = np.array([300, 100, 60, 21, 20, 1])
CPU = torch.device("cpu")


def same(values):
    return values


def meter_of(total=same):
    return Meter(COUNTS, device=CPU, total=total)


def random_steps(seed, num_steps=200, batch=16):
    random = np.random.default_rng(seed)
    for _ in range(num_steps):
        labels = random.integers(0, len(COUNTS), batch)
        losses = {name: float(random.exponential(3)) for name in ("classifier", "rotation")}
        hits = {name: random.random(batch) < 0.6 for name in ("classifier", "rotation")}
        yield losses, hits, labels


def add(meter, losses, hits, labels):
    meter.add(
        {name: torch.tensor(loss) for name, loss in losses.items()},
        {name: torch.from_numpy(hit) for name, hit in hits.items()},
        torch.from_numpy(labels),
    )


def assert_is_the_summary_of(flushed, steps):
    losses, accuracy = flushed
    groups = {"overall": np.ones(len(COUNTS), bool), **shot_groups(COUNTS)}
    assert losses.keys() == accuracy.keys() == {"classifier", "rotation"}
    for name in losses:
        mean = np.mean([step[0][name] for step in steps], dtype=np.float64)
        assert losses[name] == pytest.approx(mean, rel=1e-5)  # float32 sums
        hits = np.concatenate([step[1][name] for step in steps])
        labels = np.concatenate([step[2] for step in steps])
        for group, percent in accuracy[name].items():
            members = groups[group][labels]
            assert percent == pytest.approx(100 * hits[members].mean(dtype=np.float64))


def test_a_window_is_summed_up_as_float64_sums_on_the_host_do():
    steps, meter = list(random_steps(0)), meter_of()
    for step in steps:
        add(meter, *step)

    assert_is_the_summary_of(meter.flush(), steps)


def test_a_flush_starts_a_window_that_knows_nothing_of_the_last():
    first, second, meter = list(random_steps(1, 3)), list(random_steps(2, 7)), meter_of()
    for step in first:
        add(meter, *step)
    meter.flush()
    for step in second:
        add(meter, *step)

    assert_is_the_summary_of(meter.flush(), second)


def test_losses_in_half_precision_are_summed_in_single():
    meter = meter_of()
    for _ in range(3000):
        meter.add({"loss": torch.tensor(1.0, dtype=torch.float16)}, {}, torch.zeros(1).long())

    assert meter.flush() == ({"loss": 1.0}, {})


def test_the_sums_of_all_processes_are_summed_up_by_name():
    steps = [list(random_steps(seed, 5)) for seed in (3, 4)]

    def work(process):
        meter = meter_of(total=process.exchange.summed)
        for losses, hits, labels in steps[process.process_index]:
            if process.process_index:  # in another order
                losses, hits = (dict(reversed(each.items())) for each in (losses, hits))
            add(meter, losses, hits, labels)
        return meter.flush()

    for flushed in together(2, work):
        assert_is_the_summary_of(flushed, [*steps[0], *steps[1]])


def test_a_window_goes_on_from_its_saved_state():
    steps, first = list(random_steps(5, 9)), meter_of()
    for step in steps[:4]:
        add(first, *step)
    saved = {name: value.clone() for name, value in first.state().items()}
    second = meter_of()

    second.load_state(saved)
    for step in steps[4:]:
        add(first, *step)
        add(second, *step)

    assert second.flush() == first.flush()


@settings(max_examples=20, deadline=None)
@given(first=st.integers(0, 150), rest=st.integers(0, 150))
def test_a_window_has_the_same_bits_wherever_it_was_broken_off(first, rest):
    steps = list(random_steps(7, first + rest + 1, batch=2))
    straight, broken = meter_of(), meter_of()
    for step in steps:
        add(straight, *step)
    for number, step in enumerate(steps):
        if number == first:
            saved = {name: value.clone() for name, value in broken.state().items()}
            broken = meter_of()
            broken.load_state(saved)
        add(broken, *step)

    assert broken.flush() == straight.flush()


def test_labels_that_are_filled_anew_after_a_step_change_nothing():
    steps, meter, labels = list(random_steps(8, 5)), meter_of(), torch.empty(16).long()
    for losses, hits, numbers in steps:
        labels.copy_(torch.from_numpy(numbers))
        add(meter, losses, hits, labels.numpy())

    assert_is_the_summary_of(meter.flush(), steps)


def test_a_step_is_only_noted_and_summed_with_many_others():
    class Operations(TorchDispatchMode):
        count = 0

        def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
            self.count += 1
            return operation(*args, **(kwargs or {}))

    meter, ready = meter_of(), []
    for losses, hits, labels in random_steps(9, 40):
        ready.append(
            (
                {name: torch.tensor(loss) for name, loss in losses.items()},
                {name: torch.from_numpy(hit) for name, hit in hits.items()},
                torch.from_numpy(labels),
            )
        )
    meter.add(*ready.pop())  # the first makes what the sums need
    with Operations() as operations:
        for step in ready:
            meter.add(*step)

    assert operations.count == 39 * 3  # two losses leave their graphs, labels are copied


def test_a_new_meters_state_can_be_saved_and_loaded():
    meter = meter_of()

    meter.load_state(meter_of().state())
    add(meter, *next(random_steps(6)))

    assert meter.flush()[0].keys() == {"classifier", "rotation"}


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test moves on."""

    class Clock:
        now = 100.0

    monkeypatch.setattr("fastssd.training.meter.time.perf_counter", lambda: Clock.now)
    return Clock


def test_waiting_for_items_is_counted_and_working_on_them_is_not(clock):
    meter = meter_of()

    def slow_items():
        for item in "abc":
            clock.now += 2.0
            yield item
        clock.now += 5.0

    taken = []
    for item in meter.timed(slow_items()):
        clock.now += 10.0
        taken.append(item)

    assert taken == ["a", "b", "c"]
    assert meter.wait_seconds == 11.0
    assert meter.restart_clock() == 41.0
    assert (meter.wait_seconds, meter.num_images) == (0.0, 0)


def test_an_error_among_the_items_passes_through(clock):
    meter = meter_of()

    def broken_items():
        clock.now += 3.0
        raise ValueError("broken")
        yield

    with pytest.raises(ValueError, match="broken"):
        list(meter.timed(broken_items()))

    assert meter.wait_seconds == 3.0


def test_every_window_has_its_own_seconds(clock):
    meter = meter_of()
    clock.now += 4.0
    meter.num_images = 64

    assert meter.restart_clock() == 4.0
    clock.now += 1.5
    assert meter.restart_clock() == 1.5
    assert meter.num_images == 0
