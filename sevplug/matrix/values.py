"""What a matrix is made of, and what became of it: immutable values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import attrs

PASSED: Final = "passed"
FAILED: Final = "failed"
ERROR: Final = "error"
SKIPPED: Final = "skipped"

# outcome -> what it says of a cell
OUTCOMES: Final = {
    PASSED: "the guest did what was expected",
    FAILED: "the guest ran, and did something else",
    ERROR: "no guest came to an end: a crash, a hang, a configuration that cannot be honoured",
    SKIPPED: "it was not run, or not to its end",
}


@attrs.frozen
class Expectation:
    """What a guest has to do.

    ``statuses``: exit statuses of `sevplug run` that are right, ``results`` words of `sevplug.core.result`; None: any.
    ``said``: texts that have to be on its standard output, where the serial port is; ``unsaid``: that must not.
    """

    statuses: frozenset[int] | None = frozenset({0})
    results: frozenset[str] | None = None
    said: tuple[str, ...] = ()
    unsaid: tuple[str, ...] = ()


@attrs.frozen
class Cell:
    """One guest of a matrix.

    ``labels``: the axes' values by their labels.  ``words``: what comes after `sevplug run`; relative paths among them
    are relative to ``folder``.  ``timeout``: seconds of wall time.
    """

    name: str
    labels: Mapping[str, str]
    words: tuple[str, ...]
    folder: str
    timeout: float
    expected: Expectation = Expectation()


@attrs.frozen
class Row:
    """What became of a cell.

    ``outcome``: a key of `OUTCOMES`.  ``reason``: one line; empty where it passed.  ``status``: the exit status of its
    process, None where that had none.  ``summary``: the document of ``--summary``, None where none was written.
    ``serial``, ``log``: the last of what the process wrote to standard output and standard error;
    ``serial_sha256``: of all its standard output, in hex.  ``seconds``: of wall time.
    """

    cell: Cell
    outcome: str
    reason: str = ""
    status: int | None = None
    summary: Mapping[str, Any] | None = None
    serial: str = ""
    serial_sha256: str | None = None
    log: str = ""
    seconds: float = 0.0

    @property
    def result(self) -> str | None:
        """How the guest ended, a word of `sevplug.core.result`; None where it did not."""
        return None if self.summary is None else str(self.summary.get("result"))
