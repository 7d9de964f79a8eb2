"""The other end of a worker: a process that is asked and answers, and that may die or hang without taking us along."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

from geoact.bench.gate.sides import Side

SCRIPT = Path(__file__).with_name("worker.py")


class WorkerError(Exception):
    """A worker could not be started, died, hung, or answered with an error; the message says which."""


class Worker:
    """A process that runs one side.

    Parameters
    ----------
    side : Side
    folder : Path
        Where it runs: the folder that a relative suite is found from.
    options : dict
        Of ``worker.Side``: suite, cold, batches, shortest.
    patience : float
        Seconds that one answer may take.
    """

    def __init__(self, side: Side, folder: Path, options: dict[str, Any], patience: float = 300.0) -> None:
        self.side, self._patience = side, patience
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the worker)
        environment = {**os.environ, "PYTHONHASHSEED": "0", "PYTHONUNBUFFERED": "1"}
        try:
            self._process = subprocess.Popen(
                [side.python, str(SCRIPT)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors,
                env=environment, start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            self._errors.close()
            raise WorkerError(f"{side.python} cannot be run: {error}") from error
        assert self._process.stdout is not None
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._process.stdout, selectors.EVENT_READ)
        self._pending = b""
        try:
            self.about = self.ask("open", folder=str(folder), paths=list(side.paths), **options)
        except BaseException:
            self.close()
            raise

    def ask(self, action: str, **arguments: Any) -> dict[str, Any]:
        """Send a request and wait for its answer. Raises WorkerError."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"do": action, **arguments}).encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            raise WorkerError(self._ended(action)) from None
        answer: dict[str, Any] = json.loads(self._line(action))
        if "error" in answer:
            raise WorkerError(f"{self.side.name}: {answer['error']}")
        return answer

    def _line(self, action: str) -> bytes:
        assert self._process.stdout is not None
        while b"\n" not in self._pending:
            if not self._selector.select(self._patience):
                self.close()
                raise WorkerError(f"{self.side.name}: no answer to {action!r} within {self._patience:.0f} s")
            chunk = os.read(self._process.stdout.fileno(), 1 << 16)
            if not chunk:
                raise WorkerError(self._ended(action))
            self._pending += chunk
        line, _, self._pending = self._pending.partition(b"\n")
        return line

    def _ended(self, action: str) -> str:
        code = self._process.wait()
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
        last = self.errors().strip().splitlines()[-1:] or [""]
        return f"{self.side.name}: the process ended with {how} during {action!r}" + (f": {last[0]}" if last[0] else "")

    def errors(self) -> str:
        """What it has written to standard error."""
        if self._errors.closed:
            return ""
        self._errors.seek(0)
        return self._errors.read().decode("utf-8", "replace")

    @property
    def alive(self) -> bool:
        """Whether it can be asked."""
        return self._process.poll() is None

    def close(self) -> None:
        """End it with all that it started."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None and not stream.closed:
                try:
                    stream.close()
                except BrokenPipeError:  # it died before it had read what it was sent
                    continue
        try:
            self._process.wait(2)  # it ends when nothing more can be asked
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._selector.close()
        self._errors.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
