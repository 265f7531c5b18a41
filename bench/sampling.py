"""The share of a run that is spent in Python, by samples."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Sequence

from figures import Share
from timing import PATIENCE, piece_of
from tracing import Places, Tracer

# Seconds between two samples.
PERIOD = 0.005


def python_share(command: Sequence[str], until: bytes | None, patience: float = PATIENCE) -> Share:
    """Samples of ``command`` up to the moment that it has said ``until``, or to its end; it is ended then.

    What is neither the CPU engine nor code that it made of the guest's is Python: the interpreter, ctypes, libraries.
    No samples where the host forbids ptrace.
    """
    samples = in_python = 0
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0
    ) as process:
        try:
            tracer, places = Tracer(process.pid), Places(process.pid)
        except PermissionError:
            process.kill()
            return Share(0, 0)
        try:
            due = time.monotonic()
            deadline, said = due + patience, b""
            while due < deadline and (until is None or until not in said):
                piece = piece_of(process, due)
                if piece is not None:
                    if not piece:
                        break
                    said += piece
                    continue
                due += PERIOD
                where = tracer.program_counter()
                if where is None:
                    break
                samples += 1
                in_python += not places.is_engine(where)
        finally:
            tracer.let_go()
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
    return Share(samples, in_python)
