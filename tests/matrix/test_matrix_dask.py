"""`sevplug matrix --dask`: cells as tasks of a cluster, with its workers' misfortunes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sevplug.cli.app import run_app
from sevplug.core.errors import ConfigError
from sevplug.matrix import process
from sevplug.matrix.on_dask import DaskRunner
from sevplug.matrix.values import ERROR, PASSED, Cell

pytestmark = pytest.mark.slow
dask = pytest.importorskip("dask", reason="the package distributed is missing: pip install 'sevplug[dask]'")
distributed = pytest.importorskip(
    "distributed", reason="the package distributed is missing: pip install 'sevplug[dask]' (tox -e slow does)"
)

StandIn = Callable[[str], None]
IN_ORDER = """
import json, sys
open(sys.argv[1], "w").write(json.dumps({"result": "shutdown", "detail": ""}))
"""


@contextlib.contextmanager
def cluster(workers: int, *, processes: bool = False) -> Iterator[Any]:
    """A cluster of this machine; its workers are threads of this process, or processes."""
    with distributed.LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        processes=processes,
        protocol="tcp",
        dashboard_address=":0",
        silence_logs=50,
    ) as made:
        yield made


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with cluster(2) as made:
        yield made.scheduler_address


def cell(name: str, *words: str, folder: Path | str = "/") -> Cell:
    return Cell(name, {}, words, str(folder), 30.0)


def test_guests_run_on_the_workers(address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "m.toml"
    path.write_text('axes.firmware = ["", "missing.fd"]\ndefaults.expect.serial = "done"\n')
    assert run_app(["matrix", str(path), "--dask", address]) == 1
    out = capsys.readouterr().out
    assert "no-firmware  passed   shutdown" in out
    assert "--bios missing.fd: No such file or directory" in out
    assert "2 cells: 1 passed, 1 error in " in out


def test_a_task_that_fails_is_one_row(address: str, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(IN_ORDER)
    run_cell = process.run_cell

    def fails(of: Cell, identity: str, grace: float) -> object:
        if of.name == "bad":
            raise MemoryError("no room")
        return None if of.name == "odd" else run_cell(of, identity, grace)

    monkeypatch.setattr(process, "run_cell", fails)
    with contextlib.closing(DaskRunner(address)) as runner:
        rows = {row.cell.name: row for row in runner.rows([cell("good"), cell("bad"), cell("odd")])}
    assert rows["good"].outcome == PASSED
    assert (rows["bad"].outcome, rows["bad"].reason) == (ERROR, "the task failed: MemoryError: no room")
    assert rows["odd"].reason == "the task failed: its worker has another release of sevplug"


def test_a_runner_that_is_closed_leaves_no_guest_on_the_workers(
    address: str, stand_in: StandIn, tmp_path: Path
) -> None:
    stand_in("import sys, time; open(sys.argv[2], 'w').close(); time.sleep(0 if sys.argv[2].endswith('0') else 60)")
    with contextlib.closing(DaskRunner(address)) as runner:
        rows = runner.rows([cell(str(number), str(tmp_path / str(number))) for number in range(6)])
        assert next(rows).cell.name == "0"
        while not (tmp_path / "1").exists():
            time.sleep(0.01)
    deadline = time.monotonic() + 20
    while process._running:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert not (tmp_path / "5").exists()


def test_a_cluster_without_a_worker_is_given_up() -> None:
    with cluster(0) as made, contextlib.closing(DaskRunner(made.scheduler_address, patience=0.1)) as runner:
        (row,) = runner.rows([cell("a")])
    assert (row.outcome, row.reason) == (ERROR, "the cluster had no worker for 0.1 s")


def test_a_guest_that_takes_its_worker_along_is_one_row(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(folder))
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        cluster(1, processes=True) as made,
        contextlib.closing(DaskRunner(made.scheduler_address)) as runner,
    ):
        rows = {row.cell.name: row for row in runner.rows([cell("bad", "-P", "kills-its-parent"), cell("good")])}
    assert rows["bad"].outcome == ERROR
    assert rows["bad"].reason == "the task failed: its worker was lost"
    assert rows["good"].outcome == PASSED


@pytest.mark.parametrize(
    ("address", "said"),
    [("nowhere", "missing port number in address 'nowhere'"), ("xx://h:1", "unknown address scheme 'xx'")],
)
def test_an_address_of_no_scheduler_is_refused(address: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        DaskRunner(address)
    assert str(caught.value).startswith(f"--dask {address}: {said}")
    assert str(caught.value).endswith(", expected a scheduler, such as tcp://HOST:8786")
