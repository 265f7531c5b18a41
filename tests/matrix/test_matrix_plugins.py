"""The embedded guest under the plug-in sets of the tox matrix (SEVPLUG_TEST_PLUGINS: none, sev or all)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SETS = {
    # a plain PC that says nothing about itself
    "none": ["no:sev", "no:measurement", "no:secret-injection", "no:qmp", "no:logging"],
    # the guest's side of SEV, without anybody to attest it
    "sev": ["no:measurement", "no:secret-injection", "no:qmp", "no:logging"],
    "all": [],
}
Ran = tuple[subprocess.CompletedProcess[str], dict[str, object]]
CHOSEN = os.environ.get("SEVPLUG_TEST_PLUGINS", "all")


def run(tmp_path: Path, *arguments: str) -> Ran:
    summary = tmp_path / "summary.json"
    flags = [word for name in SETS[CHOSEN] for word in ("-P", name)]
    command = [sys.executable, "-m", "sevplug", "run", "--summary", str(summary), "--timeout", "20"]
    done = subprocess.run([*command, *flags, *arguments], capture_output=True, text=True, check=False, timeout=60)
    return done, json.loads(summary.read_text()) if summary.exists() else {}


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """One run, for whoever looks at it."""
    return run(tmp_path_factory.mktemp("run"))


def test_the_embedded_guest_ends_in_order_and_says_what_it_saw(
    ran: Ran,
) -> None:
    done, summary = ran
    assert done.returncode == 0, done.stderr
    assert summary["result"] == "shutdown"
    assert "[FAIL]" not in done.stdout
    assert "shared memory: a device read a request there" in done.stdout
    assert done.stdout.rstrip().endswith("done")
    sees_sev = "MSR 0xc0010131: SEV is active" in done.stdout
    assert sees_sev == (CHOSEN != "none")
    assert ("secret 736869e5-84f0-4973-92ec-06879ce3da0b" in done.stdout) == (CHOSEN == "all")


def test_the_summary_names_the_plug_ins_that_were_on(
    ran: Ran,
) -> None:
    _done, summary = ran
    every = {"sev", "measurement", "secret-injection", "logging", "pc-board", "direct-boot", "qmp", "guest-watch"}
    every |= {"c-bit-checker", "gdb", "phases", "progress", "report"}
    left_out = {name.removeprefix("no:") for name in SETS[CHOSEN]}
    assert set(summary["plugins"]) == every - left_out  # type: ignore[call-overload]


def test_the_launch_is_measured_only_where_a_plug_in_measures(
    ran: Ran,
) -> None:
    _done, summary = ran
    launch = summary.get("sev")
    if CHOSEN == "none":
        assert launch is None
    else:
        assert isinstance(launch, dict)
        assert launch["state"] == "running"
        assert ("measurement" in launch) == (CHOSEN == "all")


def test_without_the_logging_plug_in_only_the_guest_speaks(tmp_path: Path) -> None:
    done, _summary = run(tmp_path, "-P", "no:logging")
    assert done.stderr == ""
    assert done.stdout.startswith("sevplug self-test")
