"""`sevplug matrix` with real guests: one that ends in order beside those that end in every other way, and Ctrl-C."""

from __future__ import annotations

import copy
import json
import os
import re
import signal
import subprocess
import time
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import attrs
import pytest
from terminals import COMMAND

pytestmark = pytest.mark.slow

MATRIX = r"""
[axes.firmware]
good = ""
panics = "panics.bin"
loops = "loops.bin"
missing = "missing.fd"
[axes.plugins]
usual = []
segfaults = ["segfaults"]
raises = "raises"

[defaults]
timeout = 20
memory = "64M"
arguments = ["--ram-digest"]
expect.serial = "done"

[[exclude]]
firmware = ["panics", "loops", "missing"]
plugins = ["segfaults", "raises"]

[[include]]
firmware = "loops"
timeout = 0.3

[[include]]
name = "a panic that is expected"
firmware = "panics"
expect = { result = "panic", serial = "no init", not-serial = "done" }
"""


@attrs.frozen
class Ran:
    """One run of `MATRIX`."""

    status: int
    table: str
    progress: str
    document: dict[str, Any]
    junit: ET.Element

    def cell(self, name: str) -> dict[str, Any]:
        (found,) = [cell for cell in self.document["cells"] if cell["name"] == name]
        return found


def run_matrix(folder: Path, *options: str) -> Ran:
    (folder / "m.toml").write_text(MATRIX)
    reports = ["--json", str(folder / "m.json"), "--junit-xml", str(folder / "m.xml")]
    # In another folder than the file's, and with its distribution.
    done = subprocess.run(
        [*COMMAND, "matrix", str(folder / "m.toml"), *reports, *options],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(folder)},
    )
    document = json.loads((folder / "m.json").read_text())
    return Ran(done.returncode, done.stdout, done.stderr, document, ET.parse(folder / "m.xml").getroot())


@pytest.fixture(scope="module")
def ran(folder: Path) -> Ran:
    return run_matrix(folder, "-j", "2")


def test_each_guest_is_a_row_however_it_ends(ran: Ran) -> None:
    assert ran.status == 1
    # Where the guest was by then is chance.
    ended = re.compile(r", at rip \S+")
    rows = [
        (cell["name"], cell["outcome"], cell["result"], ended.sub("", cell["reason"])) for cell in ran.document["cells"]
    ]
    assert rows == [
        ("good/usual", "passed", "shutdown", ""),
        ("good/segfaults", "error", "shutdown", "the process died of SIGSEGV"),
        (
            "good/raises",
            "error",
            "shutdown",
            "plug-in 'raises' from bad-ends 1.2 failed in machine_close (SystemError: in the middle, "
            "raises_plugin.py:7); leave it out with -P no:raises (exit status 2, expected 0)",
        ),
        (
            "panics/usual",
            "failed",
            "panic",
            "panic: Kernel panic - not syncing: no init (exit status 1, expected 0)",
        ),
        ("loops/usual", "failed", "timeout", "timeout: no end within 0.3 s (exit status 3, expected 0)"),
        ("missing/usual", "error", None, "--bios missing.fd: No such file or directory (exit status 2, expected 0)"),
        ("a panic that is expected", "passed", "panic", ""),
    ]


def test_a_cell_tells_what_was_run_and_what_it_said(ran: Ran) -> None:
    good = ran.cell("good/usual")
    assert good["command"] == "sevplug run -m 64M --ram-digest"
    assert good["axes"] == {"firmware": "good", "plugins": "usual"}
    assert good["serial"].startswith("sevplug self-test of a guest")
    assert "launch.measure" in good["log"]
    assert good["summary"]["sev"]["launch_digest"] in good["log"]
    assert ran.cell("panics/usual")["serial"] == "\x1b[31m---[ end Kernel panic - not syncing: no init ]---\r\n"


def test_the_table_is_for_people_and_progress_for_those_who_wait(ran: Ran) -> None:
    heading, *lines, last = ran.table.splitlines()
    assert heading.split() == ["cell", "outcome", "result", "status", "seconds", "reason"]
    assert [line.split("  ")[0] for line in lines] == [cell["name"] for cell in ran.document["cells"]]
    assert re.fullmatch(r"7 cells: 2 passed, 2 failed, 3 error in \d+\.\d s, \d+ guests a minute", last)
    assert len(ran.progress.splitlines()) == 7
    assert re.search(r"^\[\d/7\] error    missing/usual  \d+\.\d s  --bios missing", ran.progress, re.MULTILINE)
    assert "\x1b" not in ran.table + ran.progress


def test_the_junit_file_has_the_same_rows(ran: Ran) -> None:
    (suite,) = ran.junit
    assert (suite.get("name"), suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("m", "7", "2", "3")
    assert [case.get("name") for case in suite] == [cell["name"] for cell in ran.document["cells"]]
    assert suite[3].findtext("system-out") == "#x1B[31m---[ end Kernel panic - not syncing: no init ]---\n"


def test_a_second_run_gives_the_same_results(ran: Ran, folder: Path) -> None:
    again = run_matrix(folder, "-j", "1", "-k", "good/usual or panics and not good")
    assert [cell["name"] for cell in again.document["cells"]] == ["good/usual", "panics/usual"]
    for cell in again.document["cells"]:
        assert repeatable(cell) == repeatable(ran.cell(cell["name"]))
        assert len(cell["summary"]["ram_sha256"]) == 64


def repeatable(cell: dict[str, Any]) -> dict[str, Any]:
    """What the documentation says is the same each time."""
    kept = copy.deepcopy(cell)
    del kept["seconds"], kept["log"], kept["summary"]["seconds"], kept["summary"]["counters"]["fills"]
    kept["summary"].get("sev", {}).pop("measurement", None)
    return kept


# -- a person, or a CI system, who has had enough ----------------------------------------------------------------------

ENDLESS = """
axes.options = [["--seed", "1"], ["--seed", "2"], ["--seed", "3"]]
defaults.arguments = ["--bios", "loops.bin", "--log-file", "log"]
"""


@pytest.fixture
def endless(folder: Path) -> Path:
    (folder / "endless.toml").write_text(ENDLESS)
    (folder / "log").unlink(missing_ok=True)
    return folder / "endless.toml"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_all_guests_and_shows_what_is_there(endless: Path, number: signal.Signals) -> None:
    report = endless.with_suffix(".json")
    command = [*COMMAND, "matrix", str(endless), "-j", "1", "--json", str(report)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as matrix:
        wait_for_run(endless.with_name("log"))
        (guest,) = children(matrix.pid)
        matrix.send_signal(number)
        out, err = matrix.communicate(timeout=60)
    assert matrix.returncode == 128 + number
    assert err == ""
    assert out.splitlines()[-1].startswith("3 cells: 3 skipped in ")
    assert [cell["outcome"] for cell in json.loads(report.read_text())["cells"]] == ["skipped"] * 3
    assert not Path(f"/proc/{guest}").exists()


def wait_for_run(log: Path) -> None:
    deadline = time.monotonic() + 30
    while not (log.exists() and "run.resume" in log.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()] or [
        int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()
    ]
