"""Worker processes, for sections, units and figures. Depends on nothing of the study."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from threading import Thread
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
Tell = Callable[[Any], None]

CONTEXT = multiprocessing.get_context("spawn")  # forking a process that has threads may deadlock


def run_each(work: Callable[[Item, Tell], Result], items: Sequence[Item], jobs: int, told: Tell) -> Iterator[Result]:
    """Give ``work(item, tell)`` of each item as it comes, in up to ``jobs`` processes; with one job, in this one.

    What ``work`` tells arrives at ``told`` here, in order; it and the items are pickled, and so are the results.

    Raises
    ------
    OSError
        If a process died.
    """
    if jobs == 1 or len(items) < 2:
        yield from (work(item, told) for item in items)
        return
    messages = CONTEXT.SimpleQueue()

    def listen() -> None:
        while (message := messages.get()) is not None:
            told(*message)

    listener = Thread(target=listen, daemon=True)
    listener.start()
    with workers(min(jobs, len(items)), _keep, messages) as pool:
        for future in as_completed([pool.submit(_there, work, item) for item in items]):
            yield future.result()
    # Not where something failed: a process that was killed may hold the lock of the queue for ever.
    messages.put(None)
    listener.join()


_messages: Any = None  # of a worker process


def _keep(messages: Any) -> None:  # noqa: ANN401
    global _messages
    _messages = messages


def _there(work: Callable[[Item, Tell], Result], item: Item) -> Result:
    return work(item, lambda message: _messages.put((message,)))


@contextmanager
def workers(jobs: int, prepare: Callable[..., None] | None = None, *arguments: Any) -> Iterator[ProcessPoolExecutor]:  # noqa: ANN401
    """So many processes, each of which begins with ``prepare(*arguments)``.

    At the end, which an exception may be, what has not begun is dropped and what has is waited for.

    Raises
    ------
    OSError
        If a process died.
    """
    pool = ProcessPoolExecutor(jobs, CONTEXT, initializer=_begin, initargs=(prepare, arguments))
    try:
        yield pool
    except BrokenProcessPool as error:
        raise OSError("a worker process died, of too little memory perhaps; units that were done are stored") from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _begin(prepare: Callable[..., None] | None, arguments: tuple[Any, ...]) -> None:
    # Ctrl-C reaches every process of a terminal: the parent says what happened.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if prepare is not None:
        prepare(*arguments)
