"""The runner that hands each cell to a dask cluster as one task (https://distributed.dask.org).

The workers need sevplug, and the images at the paths that they have here.  What happens to a worker happens to its
cell's row alone.
"""

from __future__ import annotations

import contextlib
import importlib
import queue
import signal
import time
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

from sevplug.core.errors import ConfigError
from sevplug.matrix import process
from sevplug.matrix.judging import one_line
from sevplug.matrix.values import ERROR, Cell, Row

_CONNECT = 10.0
# Seconds that a cluster may be without a worker, or out of reach, before its cells are given up.
_WITHOUT_WORKER = 30.0
_LOOK = 1.0


class DaskRunner:
    """Cells as tasks of the cluster whose scheduler is at ``address``.

    `ConfigError` when the package is not installed, and when nobody answers there.
    """

    def __init__(self, address: str, patience: float = _WITHOUT_WORKER, grace: float = process.GRACE) -> None:
        try:
            distributed = _distributed()
        except ImportError:
            raise ConfigError(
                "--dask: the package distributed is not installed, expected it: pip install 'sevplug[dask]'"
            ) from None
        try:
            # A client that fails to be made takes its time to disappear, so what can be known before is.
            distributed.comm.get_address_host_port(address)
            self._client = distributed.Client(address, timeout=_CONNECT, set_as_default=False)
        except (OSError, ValueError, TypeError) as error:
            said = one_line(str(error)) or type(error).__name__
            raise ConfigError(f"--dask {address}: {said}, expected a scheduler, such as tcp://HOST:8786") from None
        self._identity = uuid.uuid4().hex
        self._patience = patience
        self._grace = grace
        self._cells: dict[Any, Cell] = {}

    def rows(self, cells: Sequence[Cell]) -> Iterator[Row]:
        """One row for each cell, in the order in which their tasks end."""
        done: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for number, cell in enumerate(cells):
            future = self._client.submit(
                process.run_cell,
                cell,
                self._identity,
                self._grace,
                key=f"sevplug-{self._identity}-{number}",
                pure=False,
            )
            self._cells[future] = cell
            future.add_done_callback(done.put)
        seen = time.monotonic()
        while self._cells:
            if self._has_worker():
                seen = time.monotonic()
            elif time.monotonic() - seen > self._patience:
                break
            with contextlib.suppress(queue.Empty):
                future = done.get(timeout=_LOOK)
                yield _row(future, self._cells.pop(future))

        for cell in self._cells.values():
            yield Row(cell, ERROR, f"the cluster had no worker for {self._patience:.0f} s")
        self._cells.clear()

    def close(self) -> None:
        """Take back what has not begun, end the guests on the workers, and leave the cluster."""
        try:
            if self._cells and self._has_worker():
                self._client.cancel(list(self._cells))
                # A worker that does not answer is one whose guests nobody can end; their time limit does.
                self._client.run(process.end, self._identity, signal.SIGTERM, on_error="ignore")
                time.sleep(_LOOK)
                self._client.run(process.end, self._identity, signal.SIGKILL, on_error="ignore")
        finally:
            self._client.close()

    def _has_worker(self) -> bool:
        return self._client.status == "running" and bool(self._client.scheduler_info()["workers"])


def _distributed() -> Any:
    """The package, which is not there for everyone."""
    return importlib.import_module("distributed")


def _row(future: Any, cell: Cell) -> Row:
    """What the task returned; where it did not, why."""
    try:
        row = future.result()
    except Exception as error:  # whatever a worker sent, or the loss of it
        return Row(cell, ERROR, one_line(f"the task failed: {type(error).__name__}: {error}"))
    if not isinstance(row, Row):
        return Row(cell, ERROR, "the task failed: its worker has another release of sevplug")
    return row
