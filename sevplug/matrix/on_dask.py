"""The runner that hands each cell to a dask cluster as one task (https://distributed.dask.org).

The workers need sevplug, and the images at the paths that they have here.  What happens to a worker happens to its
cell's row alone: dask blames all tasks that a lost worker had, so that each of them is run once more, with no other
beside it.
"""

from __future__ import annotations

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
        self._done: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def rows(self, cells: Sequence[Cell]) -> Iterator[Row]:
        """One row for each cell, in the order in which their tasks end."""
        for cell in cells:
            self._submit(cell)
        suspects: list[Cell] = []
        alone = len(cells) == 1
        seen = time.monotonic()
        while self._cells or suspects:
            if not self._cells:
                alone = True
                self._submit(suspects.pop(0))
            if self._has_worker():
                seen = time.monotonic()
            elif time.monotonic() - seen > self._patience:
                break
            try:
                future = self._done.get(timeout=_LOOK)
            except queue.Empty:
                continue
            cell = self._cells.pop(future)
            row, lost = _outcome(future, cell)
            if lost and not alone:
                suspects.append(cell)
            else:
                yield row
        for cell in (*self._cells.values(), *suspects):
            yield Row(cell, ERROR, f"the cluster had no worker for {self._patience:g} s")
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

    def _submit(self, cell: Cell) -> None:
        key = f"sevplug-{uuid.uuid4().hex}"
        future = self._client.submit(process.run_cell, cell, self._identity, self._grace, key=key, pure=False)
        self._cells[future] = cell
        future.add_done_callback(self._done.put)

    def _has_worker(self) -> bool:
        return self._client.status == "running" and bool(self._client.scheduler_info()["workers"])


def _distributed() -> Any:
    """The package, which is not there for everyone."""
    return importlib.import_module("distributed")


def _outcome(future: Any, cell: Cell) -> tuple[Row, bool]:
    """What the task returned, or why it did not; and whether it is that its worker was lost."""
    try:
        row = future.result()
    except Exception as error:  # whatever a worker sent
        lost = isinstance(error, _distributed().KilledWorker)
        said = "its worker was lost" if lost else f"{type(error).__name__}: {error}"
        return Row(cell, ERROR, one_line(f"the task failed: {said}")), lost
    if not isinstance(row, Row):
        return Row(cell, ERROR, "the task failed: its worker has another release of sevplug"), False
    return row, False
