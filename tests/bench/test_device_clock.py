"""The clock of a CUDA device on a simulated one: what is timed and what is not, and what is known of a sample."""

import itertools

import pytest
from geoact.bench import Call, Traffic, Unavailable, device_clock, devices, runner
from geoact.bench.bars import judge, raw
from geoact.bench.clocks import Untimeable
from geoact.bench.contenders import Bar, Contender, Group
from geoact.bench.device_clock import ATTEMPTS, SHORTEST, DeviceClock, contestants, device_ceiling
from geoact.bench.engine import StopRule, measure
from geoact.bench.suite import Case
from geoact.bench.timing import Devices, Settings
from support.simulated_device import BANDWIDTH, FLUSH, HERTZ, LAUNCH, LONGEST, Evidence, SimulatedDevice, Unheld

SHORT = 2_000  # ns
RULE = StopRule(seconds=0.0, most=40)


def clock_of(device, cold=False, **evidence):
    return DeviceClock(device, cold=cold, management=Evidence(**evidence))


def nanoseconds(sample):
    return pytest.approx(sample.seconds * 1e9, rel=1e-9)


# --- what is timed --------------------------------------------------------------------------------


@pytest.mark.parametrize("repeat", [1, 10])
def test_a_short_kernel_takes_as_long_as_it_runs(repeat):
    device = SimulatedDevice()
    sample = clock_of(device).sample([device.kernel("short", SHORT)], repeat)
    assert nanoseconds(sample) == SHORT


@pytest.mark.parametrize("repeat", [1, 10])
def test_without_a_blocker_the_time_is_that_of_python_launching(repeat):
    device = Unheld()
    sample = clock_of(device).sample([device.kernel("short", SHORT)], repeat)
    assert sample.seconds * 1e9 >= LAUNCH
    assert sample.seconds * 1e9 == pytest.approx(LAUNCH + SHORT / repeat)


def test_a_long_kernel_needs_no_blocker():
    for device in (SimulatedDevice(), Unheld()):
        run = device.kernel("long", 1_000_000)
        assert clock_of(device).sample([run], 10).seconds == pytest.approx(1e-3, rel=1e-2)


def test_everything_is_queued_while_the_stream_is_held_back_and_the_flush_is_not_timed():
    device = SimulatedDevice()
    clock = clock_of(device, cold=True)
    device.done.clear()
    sample = clock.sample([device.kernel("run", SHORT)], 3)
    assert device.order == ["hold", "flush", "event", "run", "run", "run", "event"]
    hold, flush, begin, *_, end = device.done
    assert hold.end >= max(work.queued for work in device.done)
    assert flush.end - flush.begin == FLUSH
    assert begin.begin == flush.end
    assert end.begin - begin.begin == 3 * SHORT
    assert nanoseconds(sample) == SHORT


def test_a_warm_clock_does_not_flush():
    device = SimulatedDevice()
    clock_of(device).sample([device.kernel("run", SHORT)], 1)
    assert device.order == ["hold", "event", "run", "event"]


@pytest.mark.parametrize(("cold", "label"), [(True, "GPU events, L2 cold"), (False, "GPU events, L2 warm")])
def test_the_label_says_in_which_state_the_cache_is(cold, label):
    assert clock_of(SimulatedDevice(), cold).label == label


def test_buffers_take_turns_so_that_every_run_meets_a_cold_cache():
    device = SimulatedDevice()
    runs = [device.kernel("run", SHORT, cold=5_000, buffer=i) for i in range(4)]
    clock = clock_of(device, cold=True)
    assert [nanoseconds(clock.sample(runs, 4)) for _ in range(2)] == [5_000, 5_000]
    assert nanoseconds(clock.sample(runs, 8)) == (5_000 + SHORT) / 2  # from the fifth on they have been met
    assert nanoseconds(clock_of(device).sample(runs, 4)) == SHORT


def test_short_kernels_are_batched_by_the_engine_on_rotating_buffers():
    device = SimulatedDevice()
    runs = [device.kernel(f"run {i}", SHORT) for i in range(4)]
    group = Group("a case", [Contender("kernel", runs)])
    found = measure(group, clock_of(device), RULE, 5.0)
    repeat = group.contenders[0].repeat
    assert repeat in (10, 11)  # the ceiling of a quotient of two floating-point numbers
    assert (repeat - 1) * SHORT <= SHORTEST * 1e9 <= repeat * SHORT
    assert device.order[-repeat - 2 :] == ["event", *(f"run {i % 4}" for i in range(repeat)), "event"]
    assert found.seconds("kernel") == [pytest.approx(SHORT / 1e9)] * RULE.least


@pytest.mark.parametrize(("l2", "size"), [(50 << 20, 256 << 20), (200 << 20, 400 << 20)])
def test_twice_the_cache_and_at_least_256_mebibytes_are_read(l2, size):
    assert devices.flushed_bytes(l2) == size


# --- what cannot be timed -------------------------------------------------------------------------


def waiting(device, times=10**9):
    """A run that waits for the device, so many times."""
    left = itertools.count(1)

    def run():
        device.kernel("run", SHORT)()
        if next(left) <= times:
            device.synchronize()

    return run


def test_a_call_that_waits_for_the_device_cannot_be_timed_and_does_not_hang():
    device = SimulatedDevice()
    with pytest.raises(Untimeable, match="waits for the device within a call"):
        clock_of(device).sample([waiting(device)], 1)
    assert device.order.count("hold") == ATTEMPTS
    assert device.now < 1.1 * ATTEMPTS * LONGEST


def test_a_call_that_waits_the_first_time_only_is_timed_once_more():
    device = SimulatedDevice()
    assert nanoseconds(clock_of(device).sample([waiting(device, times=1)], 1)) == SHORT
    assert device.order.count("hold") == 2


def test_a_call_that_waits_is_left_out_with_the_reason_and_the_others_are_measured():
    device = SimulatedDevice()
    good, bad = Contender("good", [device.kernel("run", SHORT)]), Contender("bad", [waiting(device)])
    group = Group("a case", [bad, good], [Bar("time", "good"), Bar("ratio", "bad", ("good",))])
    time, ratio = judge(group, measure(group, clock_of(device), RULE, 5.0))
    assert time.median == pytest.approx(SHORT / 1e3)
    assert ratio.reason.startswith("bad: waits for the device")


def test_a_call_that_fails_leaves_no_stream_held_back():
    device = SimulatedDevice()

    def fail():
        raise RuntimeError("no such kernel")

    clock = clock_of(device)
    with pytest.raises(RuntimeError, match="no such kernel"):
        clock.sample([fail], 1)
    device.synchronize()
    assert device.now < LONGEST
    assert nanoseconds(clock.sample([device.kernel("run", SHORT)], 1)) == SHORT


# --- evidence -------------------------------------------------------------------------------------


def measured(device, **evidence):
    group = Group("a case", [Contender("kernel", [device.kernel("run", 100_000)])], [Bar("time", "kernel")])
    found = measure(group, clock_of(device, **evidence), RULE, 5.0)
    (row,) = judge(group, found)
    return row, raw(group, found)["contenders"]["kernel"]


def test_every_sample_knows_its_clock_rates():
    device = SimulatedDevice()
    sample = clock_of(device).sample([device.kernel("run", SHORT)], 1)
    assert (sample.hertz, sample.memory_hertz, sample.throttled) == (HERTZ, 2.6e9, ())
    row, stored = measured(device)
    assert row.flags == []
    assert (stored["MHz"], stored["memory_MHz"]) == ([1500, 1500], [2600, 2600])


def test_a_clock_rate_that_moves_is_flagged():
    row, stored = measured(SimulatedDevice(rates=itertools.cycle([1.5e9, 1.6e9])))
    assert row.flags == ["clock rate moved by 6.5%"]
    assert stored["MHz"] == [1500, 1600]


def test_throttling_is_flagged():
    row, _ = measured(SimulatedDevice(), throttled=("power cap",))
    assert row.flags == ["throttled: power cap"]


def test_nothing_is_made_up_where_rates_are_not_known():
    row, stored = measured(SimulatedDevice(rates=itertools.repeat(None)), memory=None)
    assert row.flags == []
    assert "MHz" not in stored
    assert "memory_MHz" not in stored


def test_the_facts_are_those_of_device_and_management():
    facts = clock_of(SimulatedDevice()).facts()
    assert facts == {"name": "Simulated GPU", "l2_bytes": 50 << 20, "flushed_bytes": 256 << 20, "driver": "none"}


# --- ceilings -------------------------------------------------------------------------------------

SIZE = 4 << 20
TRAFFIC = {
    "copy": Traffic(SIZE, SIZE),
    "merge": Traffic(2 * SIZE, SIZE),
    "read": Traffic(SIZE, 0),
    "fill": Traffic(0, SIZE),
}
each_kind = pytest.mark.parametrize("kind", TRAFFIC)


@each_kind
@pytest.mark.parametrize("faster", ["", "_streaming"])
def test_the_fastest_kernel_with_the_traffic_is_the_ceiling(kind, faster):
    device = SimulatedDevice(speeds={kind + faster: 1.2})
    clock = clock_of(device)
    found = device_ceiling(TRAFFIC[kind], clock)
    assert found.name == kind + faster
    assert nanoseconds(clock.sample(found.runs, 1)) == 1_000 + round(TRAFFIC[kind].total / BANDWIDTH / 1.2)
    found.check()


def test_the_race_is_run_once_for_every_kind_size_and_number_of_buffers():
    device = SimulatedDevice()
    clock = clock_of(device)
    for traffic, buffers in ((TRAFFIC["copy"], 1), (TRAFFIC["copy"], 2), (TRAFFIC["merge"], 1)):
        device_ceiling(traffic, clock, buffers=buffers)
        held = device.order.count("hold")
        assert len(device_ceiling(traffic, clock, buffers=buffers).runs) == buffers
        assert device.order.count("hold") == held
    assert len(clock.winners) == 3


def test_a_kernel_that_was_found_elsewhere_is_taken_without_a_race():
    device = SimulatedDevice()
    clock = clock_of(device)
    assert device_ceiling(TRAFFIC["copy"], clock, name="copy_streaming").name == "copy_streaming"
    assert device.order == []
    with pytest.raises(Unavailable, match="no kernel memcpy here, only copy, copy_streaming"):
        device_ceiling(TRAFFIC["copy"], clock, name="memcpy")


@pytest.mark.parametrize("kind", ["copy", "merge", "fill"])
def test_a_kernel_that_writes_nothing_is_noticed(kind):
    device = SimulatedDevice(wrong=frozenset({f"{kind}_streaming"}))
    with pytest.raises(AssertionError, match=f"{kind}_streaming gives a wrong result"):
        device_ceiling(TRAFFIC[kind], clock_of(device))


@pytest.mark.parametrize("place", [0, SIZE // 2, SIZE - 1])
def test_a_single_wrong_byte_is_noticed_at_the_ends_and_in_the_middle(place):
    class Spoiling(SimulatedDevice):
        def host(self, array):
            self.synchronize()
            array.base[place] = self.right ^ 1
            return super().host(array)

    device = Spoiling()
    (one, _) = contestants(TRAFFIC["copy"], device)
    device.right = one.runs[0].args[1][place]  # after the name: what is copied
    with pytest.raises(AssertionError, match="copy gives a wrong result"):
        one.check()


def test_the_arrays_hold_as_many_bytes_as_the_case_moves_in_whole_vectors():
    for traffic, size in ((Traffic(100, 100), 96), (Traffic(1, 0), 16), (Traffic(2000, 1000), 992)):
        assert device_clock.size_of(traffic) == size


def test_without_memory_for_it_there_is_no_ceiling():
    with pytest.raises(Unavailable, match="memory for a copy of the same bytes: out of memory"):
        device_ceiling(TRAFFIC["copy"], clock_of(SimulatedDevice(memory=SIZE)))


def test_without_such_a_kernel_there_is_no_ceiling():
    device = SimulatedDevice()
    device.kernels = lambda kind: {}
    with pytest.raises(Unavailable, match="no kernel that does nothing but read"):
        device_ceiling(TRAFFIC["read"], clock_of(device))


def test_the_clock_of_something_else_has_no_ceiling():
    class Watch:
        label = "my watch"

    with pytest.raises(Unavailable, match="the clock 'my watch' is not that of a CUDA device"):
        device_ceiling(TRAFFIC["copy"], Watch())


# --- a case on a device ---------------------------------------------------------------------------


def run_case(device, call):
    places = Devices(Settings(), {"cuda": clock_of(device, cold=True)})
    return runner.run_case(Case("toy", {}, lambda: call), places, Settings(rule=RULE, cold=True))


def test_a_case_on_a_device_is_held_against_the_copy_on_it():
    device = SimulatedDevice()
    copy = 1_000 + 2 * SIZE // BANDWIDTH
    call = Call(device.kernel("mine", 2 * copy), read=SIZE, written=SIZE, device="cuda")
    entry = run_case(device, call)
    assert (entry["status"], entry["clock"], entry["ceiling"]) == ("measured", "GPU events, L2 cold", "copy")
    assert entry["ns"] == [2 * copy] * RULE.least
    assert entry["score"]["median"] == pytest.approx(0.5, rel=1e-3)


def test_a_short_case_meets_as_many_cold_buffers_as_its_ceiling():
    device = SimulatedDevice(speeds={"cold": True})
    runs = [device.kernel("mine", SHORT, cold=2_500, buffer=i) for i in range(16)]
    entry = run_case(device, Call(runs, read=512, written=512, device="cuda"))
    assert entry["repeat"] <= 16
    assert entry["ns"][0] == 2_500
    assert entry["ceiling_ns"][0] == 1_501


def test_a_case_faster_than_the_copy_is_an_error():
    device = SimulatedDevice()
    entry = run_case(device, Call(device.kernel("mine", 1_000), read=SIZE, written=SIZE, device="cuda"))
    assert entry["status"] == "error"
    assert "of the best copy of the same bytes (copy)" in entry["reason"]
