"""What a run of the embedded guest imports, so that its start stays short; and the collector of its process."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from collections.abc import Iterator

import pytest

from sevplug.cli import collector
from sevplug.cli.app import run_app

RUN = ["run", "--serial", "null", "--log-level", "error"]
# The first line: what the interpreter itself and whatever is hooked into it have loaded is not ours.
IMPORTED = f"""
import sys; before = set(sys.modules)
from sevplug.cli.app import run_app
status = run_app({RUN})
loaded = set(sys.modules) - before
import json; print(json.dumps([status, sorted(loaded)]))
"""
# The process of a command line: what it has loaded is frozen when its guest runs, and the usual thresholds are set.
COLLECTING = f"""
import gc, json, sys
from sevplug.cli import main
from sevplug.core.machine import Machine
usual, run = gc.get_threshold(), Machine.run
def looked_at(machine, timeout):
    print(json.dumps([gc.get_freeze_count() > 10_000, gc.get_threshold() == usual]))
    return run(machine, timeout)
Machine.run = looked_at
sys.argv = ["sevplug", *{RUN}]
main()
"""
# pycryptodome calls its library by cffi, which parses C, where some other package brings that.
OF_PYCRYPTODOME = {"cffi", "_cffi_backend", "pycparser"}
# Parts of sevplug that other runs need, the standard library's that take long, and all that others bring.
NOT_FOR_THIS_GUEST = {
    "sevplug.board.disk",
    "sevplug.board.virtio",
    "sevplug.boot.direct",
    "sevplug.boot.bzimage",
    "sevplug.core.snapshot.snapshot",
    "sevplug.matrix",
    "sevplug.platform",
    "sevplug.plugins.gdb.server",
    "sevplug.plugins.json_line",
    "sevplug.plugins.qmp.server",
    "sevplug.plugins.report.page",
    "sevplug.plugins.symbols",
    "sevplug.sevapi.certificates",
    "sevplug.sevapi.elliptic",
    "sevplug.sevapi.hash_table",
    "sevplug.sevapi.rsa",
    "sevplug.testing",
    "asyncio",
    "concurrent.futures",
    "decimal",
    "difflib",
    "logging",
    "multiprocessing",
    "ssl",
    "tomllib",
    "xml",
}
MOST_MODULES = 160


def in_a_process(script: str) -> list[object]:
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    found: list[object] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def imported() -> set[str]:
    """Modules that a run of the embedded guest has imported."""
    status, loaded = in_a_process(IMPORTED)
    assert status == 0
    assert isinstance(loaded, list)
    return set(loaded)


def test_a_run_of_the_embedded_guest_imports_five_packages_of_others(imported: set[str]) -> None:
    others = {name.partition(".")[0] for name in imported} - sys.stdlib_module_names - OF_PYCRYPTODOME
    assert others == {"sevplug", "attr", "attrs", "click", "pluggy", "Crypto"}


def test_it_imports_nothing_that_only_other_runs_need(imported: set[str]) -> None:
    assert imported & NOT_FOR_THIS_GUEST == set()


def test_it_imports_no_more_than_the_machine_and_its_plug_ins(imported: set[str]) -> None:
    own = sorted(name for name in imported if name.partition(".")[0] == "sevplug")
    assert len(own) <= MOST_MODULES, f"{len(own)} modules: {' '.join(own)}"


def test_the_process_of_a_command_line_collects_as_ever_but_what_it_has_loaded() -> None:
    assert in_a_process(COLLECTING) == [True, True]


@pytest.fixture
def collecting() -> Iterator[None]:
    """Puts the collector of this process back."""
    usual = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*usual)


@pytest.mark.usefixtures("collecting")
def test_a_run_within_another_process_leaves_its_collector_alone() -> None:
    before = gc.get_threshold(), gc.get_freeze_count()
    assert run_app(RUN) == 0
    assert (gc.get_threshold(), gc.get_freeze_count()) == before


@pytest.mark.usefixtures("collecting")
def test_garbage_in_cycles_that_comes_later_is_collected() -> None:
    class Knot:
        alive = 0

        def __init__(self) -> None:
            self.knot = self
            Knot.alive += 1

        def __del__(self) -> None:
            Knot.alive -= 1

    collector.put_off()
    collector.settle()
    most = 0
    for _ in range(50_000):
        Knot()
        most = max(most, Knot.alive)
    assert most < 10_000
