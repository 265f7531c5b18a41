"""The table for people, and the document for programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from figures import Row, Spread

HEADINGS = ("", "sevplug, s", "QEMU, s", "ratio", "goal", "in Python")
NOTES = """\
Seconds from the start of the process, median (least to most); the two take turns. sevplug runs a SEV guest (C-bit 51,
launch measured), QEMU (`qemu-system-x86_64 -accel tcg`) the same kernel and initrd without SEV. "In Python" is the
share of one more run, which is not timed, that is neither inside the CPU engine nor in the code that it makes of the
guest's: the program counter is looked at every {period_ms:g} ms with ptrace.
"""


def markdown(rows: Sequence[Row], where: Mapping[str, str], period: float) -> str:
    """The rows as a Markdown table, with what they were measured on (name: value) and how.

    ``period``: seconds between two samples.
    """
    lines = [_line(HEADINGS), "|---|---|---|---|---|---|", *(_line(_cells(row)) for row in rows)]
    machine = "; ".join(f"{name} {value}" for name, value in where.items())
    return "\n".join(lines) + f"\n\n{machine}.\n\n" + NOTES.format(period_ms=period * 1000)


def document(rows: Sequence[Row], where: Mapping[str, str], rounds: int) -> dict[str, Any]:
    """The same, as a JSON document."""
    return {"rounds": rounds, "measured_on": dict(where), "rows": [row.as_json() for row in rows]}


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cells(row: Row) -> tuple[str, ...]:
    goal = "" if row.goal is None else f"≤ {row.goal}"
    fraction = row.share.fraction
    share = "" if fraction is None else f"{fraction:.0%}"
    return row.name, _seconds(row.ours), _seconds(row.peer), f"{row.ratio:.2f}", goal, share


def _seconds(spread: Spread) -> str:
    return f"{spread.median:.2f} ({spread.least:.2f} to {spread.most:.2f})"
