"""Where the cells of a matrix run: what a runner is, and the one that uses this machine's processors."""

from __future__ import annotations

import os
import queue
import signal
import threading
import time
import uuid
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Protocol

from sevplug.matrix import process
from sevplug.matrix.judging import one_line
from sevplug.matrix.values import ERROR, Cell, Row

# Seconds that a guest has to end in order when the matrix is ended.
_PATIENCE = 5.0


class Runner(Protocol):
    """Runs cells, several at a time."""

    def rows(self, cells: Sequence[Cell]) -> Iterator[Row]:
        """One row for each cell, in the order in which they end."""

    def close(self) -> None:
        """End what still runs, and leave nothing behind."""


def usable_processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0))


class LocalRunner:
    """Cells as processes of this machine, at most ``jobs`` at a time."""

    def __init__(self, jobs: int, grace: float = process.GRACE) -> None:
        self._jobs = jobs
        self._grace = grace
        self._identity = uuid.uuid4().hex
        self._threads: list[threading.Thread] = []

    def rows(self, cells: Sequence[Cell]) -> Iterator[Row]:
        """One row for each cell, in the order in which they end."""
        waiting = deque(cells)
        done: queue.SimpleQueue[Row] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._work, args=(waiting, done), name=f"sevplug-matrix-{number}", daemon=True)
            for number in range(min(self._jobs, len(cells)))
        ]
        for thread in self._threads:
            thread.start()
        for _ in cells:
            yield done.get()

    def close(self) -> None:
        """End the guests in order, kill those that do not, and wait for all."""
        try:
            process.end(self._identity, signal.SIGTERM)
            patient_until = time.monotonic() + _PATIENCE
            for thread in self._threads:
                thread.join(max(0.0, patient_until - time.monotonic()))
        finally:
            process.end(self._identity, signal.SIGKILL)
            for thread in self._threads:
                thread.join()

    def _work(self, waiting: deque[Cell], done: queue.SimpleQueue[Row]) -> None:
        while True:
            try:
                cell = waiting.popleft()
            except IndexError:
                return
            try:
                row = process.run_cell(cell, self._identity, self._grace)
            except Exception as error:  # one cell's trouble is one row, whatever it is
                row = Row(cell, ERROR, one_line(f"{type(error).__name__}: {error}"))
            done.put(row)
