"""The host's clock, on a watch that is set by the runs."""

import itertools

import pytest
from geoact.bench import clocks


@pytest.fixture
def watch(monkeypatch):
    """Nanoseconds that only the runs let pass."""
    time = [0]
    monkeypatch.setattr(clocks.time, "perf_counter_ns", lambda: time[0])
    monkeypatch.setattr(clocks.time, "perf_counter", lambda: time[0] / 1e9)
    return time


def lasting(watch, *nanoseconds):
    left = itertools.cycle(nanoseconds)

    def run():
        watch[0] += next(left)

    return run


def test_a_sample_is_the_time_of_one_run_of_those_that_take_turns(watch):
    assert clocks.HostClock().sample([lasting(watch, 1000), lasting(watch, 3000)], 4).seconds == pytest.approx(2e-6)


def test_waiting_for_a_device_is_part_of_the_time(watch):
    clock = clocks.HostClock("host", lasting(watch, 500))
    assert clock.sample([lasting(watch, 1000)], 1).seconds == pytest.approx(1.5e-6)


def test_a_sample_is_the_fastest_batch(watch):
    assert clocks.HostClock(batches=3).sample([lasting(watch, 900, 700, 800)], 1).seconds == pytest.approx(7e-7)


def test_batches_end_when_patience_does(watch):
    run = lasting(watch, 10**8, 1)
    assert clocks.HostClock(batches=3, patience=0.03).sample([run], 1).seconds == pytest.approx(0.1)


def test_a_flush_is_not_timed_and_allows_one_run(watch):
    clock = clocks.HostClock(flush=lasting(watch, 5000))
    assert clock.sample([lasting(watch, 1000)], 10).seconds == pytest.approx(1e-6)
