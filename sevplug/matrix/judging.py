"""From what a process left behind to a row: a pure function, and how texts of a guest are shown in a line."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from typing import Any

import attrs

from sevplug.matrix.values import ERROR, FAILED, PASSED, Expectation

# `sevplug run` ends with them because of its guest, and has written the summary by then.
_OF_A_GUEST = frozenset({0, 1, 3})
_CONFIGURATION = 2
_SHOWN = 300


@attrs.frozen
class Ended:
    """A process at its end.

    ``code``: as `subprocess` has it, minus a signal's number where that killed it.  ``overdue``: it did not end in
    time, and was killed for that after ``limit`` seconds.  ``complaint``: its last line on standard error.  ``says``:
    whether a text is on its standard output.
    """

    code: int
    overdue: bool
    limit: float
    summary: Mapping[str, Any] | None
    complaint: str
    says: Callable[[str], bool]


def judge(ended: Ended, expected: Expectation) -> tuple[str, str]:
    """The outcome and its reason."""
    if ended.overdue:
        return ERROR, f"the process hung: killed after {ended.limit:g} s, since its own time limit did not end it"
    if ended.code < 0:
        return ERROR, f"the process died of {_signal_name(-ended.code)}"
    if ended.code in _OF_A_GUEST and ended.summary is None:
        return ERROR, f"exit status {ended.code} and no summary: {ended.complaint or 'it said nothing'}"
    wrong = _status(ended, expected) or _result(ended, expected) or _said(ended, expected)
    if not wrong:
        return PASSED, ""
    return (ERROR if ended.code == _CONFIGURATION else FAILED), wrong


def one_line(text: str) -> str:
    """``text`` fit for one line of a terminal: nothing in it moves the cursor, and it is not endless."""
    shown = "".join(character if character.isprintable() else " " for character in text)
    shown = " ".join(shown.split())
    return shown if len(shown) <= _SHOWN else shown[: _SHOWN - 3] + "..."


def _status(ended: Ended, expected: Expectation) -> str | None:
    if expected.statuses is None or ended.code in expected.statuses:
        return None
    return f"{_what_happened(ended)} (exit status {ended.code}, expected {_one_of(expected.statuses)})"


def _result(ended: Ended, expected: Expectation) -> str | None:
    if expected.results is None or (ended.summary is not None and ended.summary.get("result") in expected.results):
        return None
    return f"{_what_happened(ended)} (expected {_one_of(expected.results)})"


def _said(ended: Ended, expected: Expectation) -> str | None:
    for text in expected.said:
        if not ended.says(text):
            return f"the serial port did not say {text!r}"
    for text in expected.unsaid:
        if ended.says(text):
            return f"the serial port said {text!r}"
    return None


def _what_happened(ended: Ended) -> str:
    """The guest's end in the summary's words, or what the process complained of where that was the end."""
    if ended.summary is None or ended.code not in _OF_A_GUEST:
        return ended.complaint or "it said nothing"
    return f"{ended.summary.get('result')}: {ended.summary.get('detail')}"


def _one_of(wanted: frozenset[int] | frozenset[str]) -> str:
    return " or ".join(sorted(map(str, wanted)))


def _signal_name(number: int) -> str:
    try:
        name = signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
    return f"{name}, which the kernel sends when memory runs out" if number == signal.SIGKILL else name
