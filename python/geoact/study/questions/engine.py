"""Runs units: those that are not stored yet, in several processes or as Ray tasks, each on one thread."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import as_completed
from importlib.util import find_spec
from typing import Any

from threadpoolctl import threadpool_limits

from geoact.study.overhead import one_thread
from geoact.study.processes import workers
from geoact.study.questions.specs import Spec
from geoact.study.questions.store import Store
from geoact.study.questions.units import run_unit

Runner = Callable[[Sequence[Spec], int], Iterator[tuple[Spec, dict[str, Any]]]]


def run_units(
    specs: Sequence[Spec], store: Store, jobs: int = 1, ray: bool = False, advance: Callable[[], None] = lambda: None
) -> dict[Spec, dict[str, Any]]:
    """Return the record of every spec, in the order given; results are stored as they come.

    Units that are timed run last, one after the other, in this process. A unit that fails has an "error" in its record
    and does not stop the others. Stopping this function loses the units that were being computed, nothing else.

    Raises
    ------
    ValueError
        If ``jobs`` is not positive, or ``ray`` is asked for and not installed.
    """
    if jobs < 1:
        raise ValueError(f"jobs must be at least 1, got {jobs}")
    if ray and find_spec("ray") is None:
        raise ValueError("--ray needs ray, which is not installed: pip install geoact[ray]")
    records: dict[Spec, dict[str, Any]] = {}
    for spec in dict.fromkeys(specs):
        if (stored := store.read(spec)) is not None:
            records[spec] = stored
            advance()
    missing = [spec for spec in dict.fromkeys(specs) if spec not in records]
    together = [spec for spec in missing if not spec.alone]
    runner: Runner = _ray_tasks if ray else (_processes if jobs > 1 and len(together) > 1 else _here)
    for part, run in ((together, runner), ([spec for spec in missing if spec.alone], _here)):
        for spec, record in run(part, jobs):
            store.write(spec, record)
            records[spec] = record
            advance()
    return {spec: records[spec] for spec in dict.fromkeys(specs)}


def _single_threaded(spec: Spec) -> dict[str, Any]:
    # Products of several threads add in another order: on one thread a result depends on its spec alone.
    with one_thread(), threadpool_limits(1):
        return run_unit(spec)


def _here(specs: Sequence[Spec], jobs: int) -> Iterator[tuple[Spec, dict[str, Any]]]:
    for spec in specs:
        yield spec, _single_threaded(spec)


def _processes(specs: Sequence[Spec], jobs: int) -> Iterator[tuple[Spec, dict[str, Any]]]:
    with workers(jobs) as pool:
        futures = {pool.submit(_single_threaded, spec): spec for spec in specs}
        for future in as_completed(futures):
            yield futures[future], future.result()


def _ray_tasks(specs: Sequence[Spec], jobs: int) -> Iterator[tuple[Spec, dict[str, Any]]]:
    import ray

    started = not ray.is_initialized()
    if started:
        ray.init(num_cpus=jobs, include_dashboard=False, log_to_driver=False)
    try:
        task = ray.remote(num_cpus=1)(_single_threaded)
        pending = {task.remote(spec): spec for spec in specs}
        while pending:
            done, _ = ray.wait(list(pending), num_returns=1)
            for reference in done:
                yield pending.pop(reference), ray.get(reference)
    finally:
        if started:
            ray.shutdown()
