"""A matrix on a terminal and in a pipe: progress on standard error, the cells and the table on standard output."""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Any

import click

from sevplug.matrix.report import HEADINGS, columns, tally
from sevplug.matrix.values import ERROR, FAILED, PASSED, SKIPPED, Cell, Row

_STYLES = {PASSED: "green", FAILED: "red", ERROR: "bold red", SKIPPED: "yellow"}


class Progress:
    """A line for each cell that has ended; on a terminal, how many there are above the cursor.

    Use it as a context manager.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._done = 0
        self._status: Any = None

    def __enter__(self) -> Progress:
        if sys.stderr.isatty():
            from rich.console import Console

            self._status = Console(stderr=True, highlight=False).status(self._state())
            self._status.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if self._status is not None:
            self._status.stop()

    def tell(self, row: Row) -> None:
        """One cell has ended."""
        self._done += 1
        place = f"[{self._done}/{self._count}]"
        reason = f"  {row.reason}" if row.reason else ""
        rest = f"  {row.cell.name}  {row.seconds:.1f} s{reason}"
        if self._status is None:
            # Nobody has to listen.
            with contextlib.suppress(OSError):
                click.echo(f"{place} {row.outcome:<7}{rest}", err=True)
            return
        from rich.text import Text

        self._status.console.print(Text.assemble(f"{place} ", (f"{row.outcome:<7}", _STYLES[row.outcome]), rest))
        self._status.update(self._state())

    def _state(self) -> str:
        return f"{self._done} of {self._count} cells"


def show_list(cells: Sequence[Cell]) -> None:
    """A line a cell: its name, and what runs it alone."""
    width = max(len(cell.name) for cell in cells)
    for cell in cells:
        click.echo(f"{cell.name.ljust(width)}  {shlex.join(['sevplug', 'run', *cell.words])}")


def show_table(rows: Sequence[Row], seconds: float) -> None:
    """All rows, and how many there are of each outcome."""
    if sys.stdout.isatty():
        _show_table(rows)
    else:
        table = [HEADINGS, *map(columns, rows)]
        widths = [max(len(line[column]) for line in table) for column in range(len(HEADINGS))]
        for line in table:
            click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    click.echo(tally(rows, seconds))


def _show_table(rows: Sequence[Row]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in HEADINGS:
        table.add_column(heading, overflow="fold")
    for row in rows:
        cells = [Text(text) for text in columns(row)]
        cells[1].stylize(_STYLES[row.outcome])
        table.add_row(*cells)
    Console().print(table)
