"""One cell is one row, whatever becomes of its process; and the runner of this machine."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sevplug.matrix import process, runners
from sevplug.matrix.process import run_cell
from sevplug.matrix.runners import LocalRunner, usable_processors
from sevplug.matrix.values import ERROR, FAILED, PASSED, SKIPPED, Cell, Expectation

pytestmark = pytest.mark.slow

StandIn = Callable[[str], None]
IN_ORDER = """
import json, sys
open(sys.argv[1], "w").write(json.dumps({"result": "shutdown", "detail": ""}))
"""


def cell(*words: str, name: str = "one", timeout: float = 20.0, folder: Path | str = "/", **expected: object) -> Cell:
    return Cell(name, {}, words, str(folder), timeout, Expectation(**expected))  # type: ignore[arg-type]


def test_a_row_has_what_the_process_left_behind(stand_in: StandIn, tmp_path: Path) -> None:
    stand_in(IN_ORDER + "import os; print(os.getcwd(), sys.argv[2:]); print('no\\nyes\\n', file=sys.stderr)")
    row = run_cell(cell("a", "b c", folder=tmp_path), "id")
    assert (row.outcome, row.reason, row.status, row.result) == (PASSED, "", 0, "shutdown")
    assert row.serial == f"{tmp_path} ['a', 'b c']\n"
    assert row.log == "no\nyes\n\n"
    assert row.serial_sha256 is not None


def test_text_is_found_in_an_output_of_which_only_the_end_is_kept(stand_in: StandIn) -> None:
    stand_in(IN_ORDER + "print('first é' + '.' * 300_000 + 'last', end='')")
    row = run_cell(cell(said=("first é", "last")), "id")
    assert row.outcome == PASSED
    assert len(row.serial) == 65536
    assert run_cell(cell(unsaid=("first",)), "id").reason == "the serial port said 'first'"


@pytest.mark.parametrize(
    ("script", "outcome", "reason"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", ERROR, "the process died of SIGSEGV"),
        ("raise KeyError('x')", ERROR, "exit status 1 and no summary: KeyError: 'x'"),
        (IN_ORDER + "sys.exit(1)", FAILED, "shutdown: (exit status 1, expected 0)"),
        ("import sys; print('\\x1b[2J sevplug\\x07', file=sys.stderr); sys.exit(2)", ERROR, "[2J sevplug (exit status"),
        (
            """import sys; print('{"text": "of a log in JSON", "event": "error"}', file=sys.stderr); sys.exit(2)""",
            ERROR,
            "of a log in JSON (exit status 2",
        ),
        ("import sys; open(sys.argv[1], 'w').write('{')", ERROR, "exit status 0 and no summary: it said nothing"),
    ],
)
def test_a_bad_end_is_a_row_with_its_reason(stand_in: StandIn, script: str, outcome: str, reason: str) -> None:
    stand_in(script)
    row = run_cell(cell(), "id")
    assert row.outcome == outcome
    assert row.reason.startswith(reason)


def test_a_process_that_outlives_its_time_is_killed_with_what_it_started(stand_in: StandIn, tmp_path: Path) -> None:
    stand_in(
        "import subprocess, time; child = subprocess.Popen(['sleep', '60']); "
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(child.pid)); time.sleep(60)"
    )
    row = run_cell(cell(timeout=0.5), "id", grace=0.75)
    assert row.outcome == ERROR
    assert row.reason == "the process hung: killed after 1.25 s, since its own time limit did not end it"
    _wait_until_gone(int((tmp_path / "pid").read_text()))


def test_a_folder_that_is_gone_is_a_row(tmp_path: Path) -> None:
    row = run_cell(cell(folder=tmp_path / "gone"), "id")
    assert row.outcome == ERROR
    assert row.reason.startswith("no process could be started: [Errno 2] No such file or directory")


@pytest.mark.parametrize("jobs", [1, 3])
def test_as_many_guests_run_at_a_time_as_were_asked_for(stand_in: StandIn, jobs: int) -> None:
    stand_in(IN_ORDER + "import time; time.sleep(0.1)")
    most, counting = 0, threading.Event()

    def count() -> None:
        nonlocal most
        while not counting.wait(0.002):
            most = max(most, sum(len(running) for running in list(process._running.values())))

    counter = threading.Thread(target=count)
    counter.start()
    cells = [cell(name=str(number)) for number in range(4)]
    with contextlib.closing(LocalRunner(jobs)) as runner:
        rows = list(runner.rows(cells))
    counting.set()
    counter.join()
    assert {row.cell.name for row in rows} == {"0", "1", "2", "3"}
    assert all(row.outcome == PASSED for row in rows)
    assert most == jobs


@pytest.mark.parametrize("ignores", [False, True], ids=["in order", "stubborn"])
def test_a_runner_that_is_closed_leaves_no_process(
    stand_in: StandIn, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ignores: bool
) -> None:
    monkeypatch.setattr(runners, "_PATIENCE", 0.3)
    handler = "signal.SIG_IGN" if ignores else "signal.SIG_DFL"
    stand_in(
        f"import os, signal, sys, time; signal.signal(signal.SIGTERM, {handler}); "
        "open(sys.argv[2], 'w').write(str(os.getpid())); time.sleep(0 if sys.argv[2].endswith('0') else 60)"
    )
    cells = [cell(str(tmp_path / str(number)), name=str(number)) for number in range(5)]
    with contextlib.closing(LocalRunner(2)) as runner:
        assert next(iter(runner.rows(cells))).cell.name == "0"
        while not ((tmp_path / "1").exists() and (tmp_path / "1").read_text()):
            time.sleep(0.01)
    assert not process._running
    _wait_until_gone(int((tmp_path / "1").read_text()))
    assert not (tmp_path / "4").exists()


def test_what_has_been_ended_starts_nothing_more() -> None:
    process.end("over")
    assert run_cell(cell(), "over").outcome == SKIPPED


def test_there_is_a_processor() -> None:
    assert usable_processors() >= 1


def _wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + 10
    while _alive(pid):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _alive(pid: int) -> bool:
    """Whether a process is there that is no zombie, which in a container nobody may ever take away."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except FileNotFoundError:
        return False
