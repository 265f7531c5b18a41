"""Rows for people and programs: a table's cells, one line, and a JSON document."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence
from typing import Any

from sevplug.matrix.judging import one_line
from sevplug.matrix.values import OUTCOMES, PASSED, Row

HEADINGS = ("cell", "outcome", "result", "status", "seconds", "reason")


def columns(row: Row) -> tuple[str, ...]:
    """One text for each of `HEADINGS`, each fit for one line."""
    return (
        row.cell.name,
        row.outcome,
        one_line(row.result) if row.result else "-",
        "-" if row.status is None else str(row.status),
        f"{row.seconds:.1f}",
        row.reason,
    )


def tally(rows: Sequence[Row], seconds: float) -> str:
    """How many there were of each outcome, and how many guests a minute: ``3 cells: 2 passed, 1 failed in 4.1 s``."""
    counts = Counter(row.outcome for row in rows)
    parts = ", ".join(f"{counts[outcome]} {outcome}" for outcome in OUTCOMES if counts[outcome])
    ran = sum(row.summary is not None for row in rows)
    rate = f", {60 * ran / seconds:.0f} guests a minute" if ran and seconds > 0 else ""
    return f"{len(rows)} cell{'s' if len(rows) != 1 else ''}: {parts} in {seconds:.1f} s{rate}"


def all_passed(rows: Sequence[Row]) -> bool:
    """Whether each cell did what was expected of it."""
    return all(row.outcome == PASSED for row in rows)


def document(rows: Sequence[Row], file: str, seconds: float) -> dict[str, Any]:
    """Everything that is known of a matrix run.

    ``seconds``, ``log`` and, in a summary, ``seconds``, ``measurement`` and the counter ``fills`` differ from run to
    run, and so does where a guest was that its time limit ended; nothing else does.
    """
    counts = Counter(row.outcome for row in rows)
    return {
        "matrix": file,
        "seconds": round(seconds, 3),
        **{outcome: counts[outcome] for outcome in OUTCOMES},
        "cells": [_row(row) for row in rows],
    }


def _row(row: Row) -> dict[str, Any]:
    cell = row.cell
    return {
        "name": cell.name,
        "axes": dict(cell.labels),
        "command": shlex.join(["sevplug", "run", *cell.words]),
        "outcome": row.outcome,
        "reason": row.reason,
        "result": row.result,
        "status": row.status,
        "seconds": round(row.seconds, 3),
        "serial": row.serial,
        "serial_sha256": row.serial_sha256,
        "log": row.log,
        "summary": None if row.summary is None else dict(row.summary),
    }
