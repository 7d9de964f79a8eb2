"""What a test calls: it makes a ``Call`` of a function and its arguments, and fails the test if the call is wrong.

``gpu_benchmark(function, *args, **kwargs)`` is used as pytest-benchmark's fixture is, everything behind the function
being passed to it; ``gpu_benchmark.measure`` takes its arguments as ``benchmark.pedantic`` does, and what the call is
besides: its bytes, a check, a device. One test measures one call.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from geoact.bench.contenders import Unavailable
from geoact.bench.pytest_plugin import arrays, contract
from geoact.bench.suite import DEVICES, Call

if TYPE_CHECKING:
    from geoact.bench.pytest_plugin.recorder import Recorder

NOT_STORED = ("name", "axes", "status", "ns", "summary")
"""Of an entry, what pytest-benchmark stores in its own way."""

NO_GPU = "there is no CUDA device here: timed by the CPU's clock"


class GpuBenchmark:
    """The fixture ``gpu_benchmark``; ``pytest_geoact`` makes it.

    Parameters
    ----------
    benchmark : BenchmarkFixture
        That of pytest-benchmark, whose table and storage get the samples.
    recorder : Recorder
        What keeps the measurements of this session.
    node : pytest.Item
        The test.
    """

    def __init__(self, benchmark: Any, recorder: Recorder, node: pytest.Item) -> None:
        changed = contract.changed(benchmark)
        if changed:
            raise RuntimeError(f"this pytest-benchmark is none of {contract.SUPPORTED}: {'; '.join(changed)}")
        self._benchmark, self._recorder, self._node = benchmark, recorder, node

    @property
    def evidence(self) -> dict[str, Any]:
        """What is known of the measurement once it is made: GB/s, score, clock, flags; stored with the row."""
        found: dict[str, Any] = self._benchmark.extra_info.get("geoact", {})
        return found

    def __call__(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Measure ``function(*args, **kwargs)`` and return its result. No bytes are declared: see ``measure``."""
        return self.measure(function, args, kwargs)

    def measure(
        self,
        function: Callable[..., Any],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        read: int = 0,
        written: int = 0,
        flops: int = 0,
        check: Callable[[Any], object] | None = None,
        before: Callable[[], object] = lambda: None,
        runs: Sequence[Callable[[], object]] = (),
        device: str = "auto",
        cold: bool | None = None,
        threads: int = 1,
        calls: int = 1,
        code: str | None = None,
    ) -> Any:
        """Measure ``function(*args, **kwargs)`` against the copy of its bytes; return the result of its last call.

        Parameters
        ----------
        function : callable
        args, kwargs
            What it is called with, the same objects every time.
        read, written : int
            Bytes that one call has to read and to write, each counted once. Without them there is no copy to hold it
            against, and only its absolute time is known.
        flops : int
            Floating-point operations of one call.
        check : callable, optional
            Called with the result of a call before timing and after it. It raises AssertionError, or returns False,
            if the result is wrong; or returns a checksum, a number or bytes, which must be the same both times.
        before : callable, optional
            Called, untimed, ahead of every sample: puts back what a call changes.
        runs : sequence of callables, optional
            The same call on other buffers; they take turns with the first, so that each finds colder caches.
        device : {"auto", "cpu", "cuda"}
            Whose clock times it. "auto": where the arrays among arguments and result lie; without any, the CPU's if
            there is no GPU, and else an error, for the wrong clock would tell nonsense. Without a GPU "cuda" skips.
        cold : bool, optional
            Flush the caches ahead of every sample; default: as ``--geoact-cold`` says.
        threads : int
            Threads that it uses on a CPU; the copy uses as many.
        calls : int
            Calls that one run of the function makes (a replayed graph of several).
        code : str, optional
            A hash of its machine code: where it is that of the baseline, a difference is noise.

        Raises
        ------
        TypeError, ValueError
            An argument is wrong.
        pytest.fail.Exception
            A result is wrong, the speed is impossible, or it cannot be timed.
        """
        if self._benchmark._mode:
            raise RuntimeError(f"a test measures one call: this one was measured by {self._benchmark._mode} before")
        self._benchmark._mode = "gpu_benchmark(...)"
        if device not in ("auto", *DEVICES):
            raise ValueError(f"device is {device!r}; it must be one of auto, {', '.join(DEVICES)}")
        bound = partial(function, *args, **(kwargs or {}))
        verified = _Check(bound, check)
        call = Call(
            [bound, *runs], read, written, flops, verified, before, "cpu" if device == "auto" else device, calls,
            threads, code,
        )  # fmt: skip
        if device == "cuda":
            self._clock(call, cold)
        before()
        result = bound()
        if self._benchmark.disabled:
            verified.of(result)
            self._recorder.not_timed(self._node)
            return result
        if device == "auto":
            call.device = self._device([*args, *(kwargs or {}).values(), result])
        self._clock(call, cold)
        self._store(self._timed(call, cold, verified))
        before()
        return bound()

    def _device(self, values: Sequence[object]) -> str:
        """Where the arrays lie."""
        found, gpu = arrays.device_of(values), arrays.gpu_here()
        if not gpu and found != "cuda":
            self._recorder.notes.add(NO_GPU)
            return "cpu"
        if found is None:
            raise ValueError(
                "device: neither the arguments nor the result are arrays that tell where they lie; say device='cpu' or "
                "device='cuda'"
            )
        return found

    def _clock(self, call: Call, cold: bool | None) -> None:
        """Skip the test where its device has no clock."""
        try:
            self._recorder.devices(cold).clock(call.device)
        except Unavailable as error:
            pytest.skip(f"it is timed on a GPU: {error}")

    def _timed(self, call: Call, cold: bool | None, verified: _Check) -> dict[str, Any]:
        with _untraced():
            entry = self._recorder.measure(self._benchmark.fullname, self._benchmark.params or {}, call, cold)
        if entry["status"] != "measured":
            if verified.error is not None:
                raise AssertionError(entry["reason"]) from verified.error
            pytest.fail(f"{self._node.name}: {entry['reason']}", pytrace=False)
        return entry

    def _store(self, entry: dict[str, Any]) -> None:
        """Give pytest-benchmark the samples and the evidence."""
        self._benchmark.extra_info["geoact"] = {k: v for k, v in entry.items() if k not in NOT_STORED}
        stats = self._benchmark._make_stats(1)
        for nanoseconds in entry["ns"]:
            stats.update(nanoseconds / 1e9)


class _Check:
    """The check of a user as the engine takes it: makes the call, looks at its result, keeps what was wrong."""

    def __init__(self, bound: Callable[[], Any], check: Callable[[Any], object] | None) -> None:
        if check is not None and not callable(check):
            raise TypeError(f"check must be a callable, got {check!r}")
        self._bound, self._check = bound, check
        self.error: AssertionError | None = None

    def __call__(self) -> object:
        return None if self._check is None else self.of(self._bound())

    def of(self, result: object) -> object:
        """A checksum of the result, or None; AssertionError if it is wrong."""
        if self._check is None:
            return None
        try:
            found = self._check(result)
            if getattr(found, "ndim", None) == 0:  # a scalar of NumPy, of CuPy, of torch
                found = found.item()  # type: ignore[attr-defined]
            if found is False:
                raise AssertionError("check returned False")
        except AssertionError as error:
            self.error = error
            raise
        if found is None or found is True:
            return None
        if isinstance(found, bytes):
            return found.hex()
        if isinstance(found, (str, int, float)):
            return found
        raise TypeError(f"check must raise AssertionError, or return a bool or a checksum, got {type(found).__name__}")


@contextmanager
def _untraced() -> Iterator[None]:
    """Nobody looks on while it is timed: a tracer of coverage, or a profiler, takes longer than a short call."""
    tracer, profiler = sys.gettrace(), sys.getprofile()
    sys.settrace(None)
    sys.setprofile(None)
    try:
        yield
    finally:
        sys.settrace(tracer)
        sys.setprofile(profiler)
