"""The table for people, and the document for programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from figures import Row, Spread

HEADINGS = ("", "sevplug", "peer", "which is", "ratio", "goal", "in Python")
NOTES = """\
Median (least to most); the two take turns. Boots are taken from the start of the process to the line
`INIT: userspace reached` on the serial port: sevplug runs a SEV guest (C-bit 51, launch measured, memory encrypted),
QEMU (`qemu-system-x86_64 -accel tcg`) the same kernel and initrd without SEV. "In Python" is the share of one more run,
which is not timed, that is neither inside the CPU engine nor in the code that it makes of the guest's: the program
counter is looked at every {period_ms:g} ms with ptrace.
"""


def markdown(rows: Sequence[Row], where: Mapping[str, str], period: float) -> str:
    """The rows as a Markdown table, with what they were measured on (name: value) and how.

    ``period``: seconds between two samples.
    """
    lines = [_line(HEADINGS), "|---" * len(HEADINGS) + "|", *(_line(_cells(row)) for row in rows)]
    machine = "; ".join(f"{name} {value}" for name, value in where.items())
    return "\n".join(lines) + f"\n\n{machine}.\n\n" + NOTES.format(period_ms=period * 1000)


def document(rows: Sequence[Row], where: Mapping[str, str], rounds: int) -> dict[str, Any]:
    """The same, as a JSON document."""
    return {"rounds": rounds, "measured_on": dict(where), "rows": [row.as_json() for row in rows]}


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cells(row: Row) -> tuple[str, ...]:
    fraction = None if row.share is None else row.share.fraction
    share = "" if fraction is None else f"{fraction:.0%}"
    return (
        row.name,
        _spread(row.ours, row),
        _spread(row.peer, row),
        row.peer_name,
        f"{row.ratio:.2f}",
        _goal(row),
        share,
    )


def _goal(row: Row) -> str:
    if row.goal is None:
        return ""
    unit = "" if row.goal.of_ratio else f" {row.unit}"
    return f"≤ {row.goal.most:g}{unit}, {'met' if row.met else 'missed'}"


def _spread(spread: Spread, row: Row) -> str:
    digits = 0 if row.unit == "MiB" else 2 if spread.median >= 0.1 else 4
    rate = f", {60 / spread.median:.0f} a minute" if row.one_of_many else ""
    return f"{spread.median:.{digits}f} {row.unit} ({spread.least:.{digits}f} to {spread.most:.{digits}f}){rate}"
