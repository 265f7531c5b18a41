"""Running a process, and taking the time until it has said something or has ended."""

from __future__ import annotations

import os
import select
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

# More than any guest here takes on a slow machine; a guest that has not come up by then hangs.
PATIENCE = 300.0
_TAIL = 2000


class NotBooted(Exception):
    """A run that did not get where it had to; the text says what it said last."""


def seconds_until(command: Sequence[str], text: bytes, patience: float = PATIENCE) -> float:
    """Seconds from the start of ``command`` until ``text`` is on its standard output; it is ended then.

    `NotBooted` when it ends before, or has not said it after ``patience`` seconds.
    """
    with tempfile.TemporaryFile() as complaints:
        started = time.monotonic()
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=complaints, bufsize=0
        ) as process:
            try:
                said = _read_until(process, text, started + patience)
                taken = time.monotonic() - started
            finally:
                process.terminate()
        if text not in said:
            complaints.seek(0)
            raise NotBooted(f"{text.decode()!r} did not come within {taken:.0f} s: {_last(said, complaints.read())}")
    return taken


def resident_at(command: Sequence[str], text: bytes, patience: float = PATIENCE) -> float:
    """MiB of memory that ``command`` has resident, at most, until ``text`` is on its standard output; as above."""
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0
    ) as process:
        try:
            said = _read_until(process, text, time.monotonic() + patience)
            status = Path(f"/proc/{process.pid}/status").read_text()
        finally:
            process.terminate()
    if text not in said:
        raise NotBooted(f"{text.decode()!r} did not come: {_last(said, b'')}")
    (peak,) = (line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(peak) / 1024


def seconds_of(command: Sequence[str], typed: bytes = b"", patience: float = PATIENCE) -> float:
    """Seconds that ``command``, with ``typed`` on its standard input, takes from start to end.

    `NotBooted` unless it ends with status 0 within ``patience`` seconds.
    """
    started = time.monotonic()
    try:
        done = subprocess.run(command, input=typed, capture_output=True, timeout=patience, check=False)
    except subprocess.TimeoutExpired as expired:
        raise NotBooted(f"no end within {patience:.0f} s: {_last(expired.stdout or b'', b'')}") from None
    taken = time.monotonic() - started
    if done.returncode:
        raise NotBooted(f"exit status {done.returncode}: {_last(done.stdout, done.stderr)}")
    return taken


def piece_of(process: subprocess.Popen[bytes], deadline: float) -> bytes | None:
    """What is on the process's standard output by monotonic time ``deadline``; empty at its end, None: nothing."""
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], max(0.0, deadline - time.monotonic()))
    return os.read(process.stdout.fileno(), 1 << 16) if ready else None


def _read_until(process: subprocess.Popen[bytes], text: bytes, deadline: float) -> bytes:
    """What the process said, up to ``text``, its end or the deadline."""
    said = b""
    while text not in said:
        piece = piece_of(process, deadline)
        if not piece:
            break
        said += piece
    return said


def _last(said: bytes, complaints: bytes) -> str:
    text = (said[-_TAIL:] + b"\n" + complaints[-_TAIL:]).decode(errors="replace").strip()
    return f"the last of what it said:\n{text}"
