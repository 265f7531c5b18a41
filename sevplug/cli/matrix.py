"""``sevplug matrix``: many guests, and one table of what became of them."""

from __future__ import annotations

import contextlib
import json
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import click

from sevplug.cli.app import NOT_IN_ORDER
from sevplug.cli.documents import read_document
from sevplug.cli.matrix_cells import check_words, select
from sevplug.core.errors import ConfigError
from sevplug.core.reserved_file import ReservedFile
from sevplug.matrix.file import parse_matrix
from sevplug.matrix.values import PASSED, SKIPPED, Cell, Row

if TYPE_CHECKING:
    from sevplug.matrix.runners import Runner

# By which a CI system ends a job, and a terminal that is closed.
_SIGNALS = (signal.SIGTERM, signal.SIGHUP)
HELP = """Run a guest for each cell of a matrix: firmware x kernel x options x plug-ins, as FILE says.

A cell is one "sevplug run" in a process of its own, with FILE's folder as its working folder; a crash or a hang
of one is its row, and the others go on.  Progress is shown on stderr, the table on stdout.

Exit status: 0 each guest did what was expected, 1 one did not, 2 usage, or FILE is wrong.
"""


def command() -> click.Command:
    """A fresh ``matrix`` command."""
    return click.Command(
        "matrix", callback=_matrix, help=HELP, short_help="Run many guests, as a TOML file says.", params=_options()
    )


def _options() -> list[click.Parameter]:
    return [
        click.Argument(["file"], metavar="FILE.toml"),
        click.Option(
            ["-j", "--jobs"],
            type=click.IntRange(min=1),
            metavar="N",
            help="Guests at a time; default: the processors that this process may use.",
        ),
        click.Option(
            ["-k", "expression"],
            metavar="EXPR",
            help="Only cells with EXPR in their names; texts may be joined by and, or, not.",
        ),
        click.Option(["-x", "--fail-fast"], is_flag=True, help="End everything at the first cell that does not pass."),
        click.Option(["--list", "only_list"], is_flag=True, help="Show the cells, and what would be run; run nothing."),
        click.Option(["--json", "json_file"], metavar="FILE", help="Write everything that is known as JSON."),
        click.Option(
            ["--junit-xml", "--junitxml", "junit_file"], metavar="FILE", help="Write the results as JUnit XML."
        ),
        click.Option(
            ["--dask"],
            metavar="ADDRESS",
            help="Run the cells on the dask cluster whose scheduler is at ADDRESS.  FILE's folder and all images have "
            "to be at the same paths on the workers.  Needs sevplug[dask].",
        ),
    ]


def _matrix(
    file: str,
    jobs: int | None,
    expression: str | None,
    fail_fast: bool,
    only_list: bool,
    json_file: str | None,
    junit_file: str | None,
    dask: str | None,
) -> int:
    if jobs is not None and dask is not None:
        raise ConfigError("-j, --dask: expected one of them, a cluster's workers say how much they run")
    cells = parse_matrix(read_document("FILE.toml", file), file, str(Path(file).resolve().parent))
    for cell in cells:
        check_words(cell, file)
    cells = select(cells, expression)
    if only_list:
        from sevplug.cli.matrix_display import show_list

        show_list(cells)
        return 0
    with contextlib.ExitStack() as stack:
        as_json = None if json_file is None else stack.enter_context(ReservedFile("--json", json_file))
        as_junit = None if junit_file is None else stack.enter_context(ReservedFile("--junit-xml", junit_file))
        started = time.monotonic()
        rows, number = _run(cells, _runner(jobs, dask), fail_fast)
        seconds = time.monotonic() - started
        from sevplug.cli.matrix_display import show_table

        try:
            _write(rows, seconds, file, as_json, as_junit)
        finally:
            show_table(rows, seconds)
    if number is not None:
        return 128 + number
    from sevplug.matrix.report import all_passed

    return 0 if all_passed(rows) else NOT_IN_ORDER


def _runner(jobs: int | None, dask: str | None) -> Runner:
    if dask is not None:
        from sevplug.matrix.on_dask import DaskRunner

        return DaskRunner(dask)
    from sevplug.matrix.runners import LocalRunner, usable_processors

    return LocalRunner(jobs or usable_processors())


def _run(cells: Sequence[Cell], runner: Runner, fail_fast: bool) -> tuple[list[Row], int | None]:
    """A row for each cell, in the cells' order; and the signal that ended it, if one did."""
    from sevplug.cli.matrix_display import Progress

    found: dict[str, Row] = {}
    number = None
    with Progress(len(cells)) as progress, _signals_as_interrupt() as caught:
        try:
            with contextlib.closing(runner):
                for row in runner.rows(cells):
                    found[row.cell.name] = row
                    progress.tell(row)
                    if fail_fast and row.outcome != PASSED:
                        break
        except KeyboardInterrupt:
            number = caught[0] if caught else signal.SIGINT
    return [found.get(cell.name, Row(cell, SKIPPED, "not run to its end")) for cell in cells], number


@contextlib.contextmanager
def _signals_as_interrupt() -> Iterator[list[int]]:
    """Within the block `_SIGNALS` are as Ctrl-C, and put into the list; outside the main thread nothing changes."""
    caught: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield caught
        return

    def interrupt(number: int, _frame: FrameType | None) -> None:
        caught.append(number)
        raise KeyboardInterrupt

    previous = [signal.signal(number, interrupt) for number in _SIGNALS]
    try:
        yield caught
    finally:
        for number, handler in zip(_SIGNALS, previous, strict=True):
            signal.signal(number, handler)


def _write(
    rows: Sequence[Row], seconds: float, file: str, as_json: ReservedFile | None, as_junit: ReservedFile | None
) -> None:
    from sevplug.matrix.junit import junit
    from sevplug.matrix.report import document

    if as_json is not None:
        as_json.write_text(json.dumps(document(rows, file, seconds), indent=2) + "\n")
    if as_junit is not None:
        as_junit.write_text(junit(rows, Path(file).stem, seconds))
