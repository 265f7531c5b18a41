"""One cell in a process of its own, from its start to a row, whatever happens to it.

A run of a matrix has an identity, and whoever knows it can end all its processes here (`end`): this is how it
is done on the workers of a cluster, where nobody has a process's handle.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import mmap
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from io import BufferedRandom
from pathlib import Path
from typing import Any

from sevplug.matrix.judging import Ended, judge, one_line
from sevplug.matrix.values import ERROR, SKIPPED, Cell, Row

# Seconds that a process has beyond its guest's time limit, for its start and its end on a busy machine.
GRACE = 30.0
_LAST = 1 << 16
_ENDED_BY_US = (-signal.SIGTERM, -signal.SIGKILL, 128 + signal.SIGTERM)
_PREFIX = "sevplug: error: "

_lock = threading.Lock()
_running: dict[str, set[subprocess.Popen[bytes]]] = {}
_ended: set[str] = set()


def run_cell(cell: Cell, identity: str, grace: float = GRACE) -> Row:
    """Run ``cell`` as a process of the matrix run ``identity``; never raises because of what the process does."""
    started = time.monotonic()
    try:
        with tempfile.TemporaryDirectory(prefix="sevplug-matrix-") as folder:
            return _run(cell, identity, grace, Path(folder), started)
    except (OSError, ValueError) as error:
        return Row(cell, ERROR, one_line(f"no process could be started: {error}"), seconds=time.monotonic() - started)


def end(identity: str, number: int = signal.SIGTERM) -> None:
    """Send a signal to every process of the run ``identity``; it starts none from now on."""
    with _lock:
        _ended.add(identity)
        for process in _running.get(identity, ()):
            _signal(process, number)


def command_line(cell: Cell, summary: str) -> list[str]:
    """What runs ``cell``, and writes its ``summary``."""
    # -P: the folder of the matrix is where the process runs, and no place to import from.
    python = [sys.executable, "-P", "-m", "sevplug"]
    return [*python, "run", "--timeout", f"{cell.timeout:.3f}", "--summary", summary, *cell.words]


def _run(cell: Cell, identity: str, grace: float, folder: Path, started: float) -> Row:
    summary = folder / "summary.json"
    command = command_line(cell, str(summary))
    with (folder / "serial").open("w+b") as serial, (folder / "log").open("w+b") as log:
        with _started(command, cell, identity, serial, log) as process:
            if process is None:
                return Row(cell, SKIPPED, "not run")
            limit = cell.timeout + grace
            code, overdue = _wait(process, limit)
        seconds = time.monotonic() - started
        if identity in _ended and code in _ENDED_BY_US:
            return Row(cell, SKIPPED, "ended before it was through", seconds=seconds)
        said, complaints = _last(serial), _last(log)
        document = _document(summary)
        ended = Ended(code, overdue, limit, document, _complaint(complaints), lambda text: _holds(serial, text))
        outcome, reason = judge(ended, cell.expected)
        return Row(
            cell,
            outcome,
            one_line(reason),
            status=code if code >= 0 else None,
            summary=document,
            serial=said,
            serial_sha256=_sha256(serial),
            log=complaints,
            seconds=seconds,
        )


@contextlib.contextmanager
def _started(
    command: list[str], cell: Cell, identity: str, serial: BufferedRandom, log: BufferedRandom
) -> Iterator[subprocess.Popen[bytes] | None]:
    """The process, known to `end` as long as the block lasts; None where the run has been ended."""
    with _lock:
        if identity in _ended:
            process = None
        else:
            # A session of its own: Ctrl-C is for the matrix, and what the process starts is killed with it.
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=serial,
                stderr=log,
                cwd=cell.folder,
                start_new_session=True,
            )
            _running.setdefault(identity, set()).add(process)
    try:
        yield process
    finally:
        if process is not None:
            with _lock:
                _running[identity].discard(process)
                if not _running[identity]:
                    del _running[identity]
            if process.poll() is None:
                _signal(process, signal.SIGKILL)
                process.wait()


def _wait(process: subprocess.Popen[bytes], limit: float) -> tuple[int, bool]:
    """The exit code, and whether the process was killed for it after ``limit`` seconds.

    Not `Popen.wait` with a time-out, which looks every 50 ms.
    """
    overdue = threading.Event()

    def kill() -> None:
        overdue.set()
        _signal(process, signal.SIGKILL)

    timer = threading.Timer(min(limit, threading.TIMEOUT_MAX), kill)
    timer.daemon = True
    timer.start()
    try:
        return process.wait(), overdue.is_set()
    finally:
        timer.cancel()


def _signal(process: subprocess.Popen[bytes], number: int) -> None:
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)


def _document(path: Path) -> dict[str, Any] | None:
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return document if isinstance(document, dict) else None


def _last(file: BufferedRandom) -> str:
    """The end of what was written, as text."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _LAST))
    return file.read().decode(errors="replace")


def _complaint(log: str) -> str:
    """The last line; of a log in JSON, its text."""
    lines = [line for line in log.splitlines() if line.strip()]
    last = lines[-1].removeprefix(_PREFIX) if lines else ""
    with contextlib.suppress(ValueError, KeyError, TypeError):
        last = str(json.loads(last)["text"])
    return one_line(last)


def _holds(file: BufferedRandom, text: str) -> bool:
    """Whether ``text`` (UTF-8) is in the file, which may be larger than memory."""
    wanted = text.encode()
    if not file.seek(0, os.SEEK_END):
        return not wanted
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        return mapped.find(wanted) >= 0


def _sha256(file: BufferedRandom) -> str:
    file.seek(0)
    return hashlib.file_digest(file, "sha256").hexdigest()
