"""How a run can end, and what is counted while it lasts."""

from __future__ import annotations

from typing import Final

import attrs

SHUTDOWN: Final = "shutdown"
RESET: Final = "reset"
HALTED: Final = "halted"
TIMEOUT: Final = "timeout"
FAULT: Final = "fault"
QUIT: Final = "quit"
HANG: Final = "hang"
PANIC: Final = "panic"
TERMINATED: Final = "terminated"
REFUSED: Final = "refused"
STOPPED: Final = "stopped"

RESULTS: Final = {
    SHUTDOWN: "the guest switched itself off",
    RESET: "the guest asked for a reset",
    HALTED: "the guest halted with interrupts off, so that nothing can wake it",
    TIMEOUT: "the time limit passed",
    FAULT: "the guest cannot go on (a triple fault, or the engine gave up)",
    QUIT: "whoever controls the machine ended it",
    HANG: "the guest waits for something that cannot come",
    PANIC: "the guest's kernel panicked",
    TERMINATED: "the guest asked to be terminated, since it does not trust what it found",
    STOPPED: "a check stopped the guest",
    REFUSED: "the firmware refused to start what was not measured",
}
"""How a run can end: a word, and what it says of the guest."""
ORDERLY: Final = frozenset({SHUTDOWN, RESET, QUIT})
"""The ends that somebody wanted."""


@attrs.define
class Counters:
    """Events of one run.  ``fills`` (misses of the engine's translation cache) differs from run to run."""

    fills: int = 0
    faults: int = 0
    cpuid: int = 0
    rdmsr: int = 0
    wrmsr: int = 0
    io: int = 0
    interrupts: int = 0


@attrs.frozen
class End:
    """Why a run ends: ``result`` is a key of `RESULTS`, ``detail`` one line."""

    result: str
    detail: str

    @property
    def orderly(self) -> bool:
        """True when the guest (or whoever controls it) ended the run on purpose."""
        return self.result in ORDERLY


@attrs.frozen
class RunResult(End):
    """The end of a run, and how long it took: ``seconds`` of wall time."""

    seconds: float
