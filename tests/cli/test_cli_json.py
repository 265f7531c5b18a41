"""``--log-format json``: whatever happens, each line on stderr is one JSON object with a name that the docs list."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from images import ROOT
from terminals import COMMAND, at_a_terminal

from sevplug.board.serial import Serial
from sevplug.cli.app import run_app
from sevplug.core.plugins import PluginManager

pytestmark = pytest.mark.slow

RESET_VECTOR = 0xFF0
SPIN, HALT = b"\xeb\xfe", b"\xfa\xf4"
# lidt cs:[0xf000], where zeros are; ud2
FAULT = b"\x2e\x0f\x01\x1e\x00\xf0\x0f\x0b"
# mov dx, 0xcf9; mov al, 6; out dx, al; hlt
RESET = b"\xba\xf9\x0c\xb0\x06\xee\xf4"
PANIC = b"Kernel panic - not syncing: no init\n---[ end Kernel panic - not syncing: no init ]---\n"
JSON = ("--log-format", "json")

FOREIGN = """
import threading, warnings
from sevplug import hookimpl

@hookimpl
def machine_init(machine):
    {what}
"""


def firmware(folder: Path, code: bytes) -> str:
    path = folder / "firmware.bin"
    path.write_bytes(bytes(RESET_VECTOR) + code.ljust(16, b"\xf4"))
    return str(path)


def panicking(folder: Path) -> str:
    """Firmware that prints what a kernel prints that panics."""
    text = PANIC
    # mov si, text; mov dx, 0x3f8; next: cs lodsb; out dx, al; test al, al; jnz next; jmp .
    code = b"\xbe\x00\xf0\xba\xf8\x03\x2e\xac\xee\x84\xc0\x75\xf9\xeb\xfe"
    path = folder / "firmware.bin"
    image = bytearray(0x10000)
    image[0xF000 : 0xF000 + len(text)] = text
    image[0xFFF0 : 0xFFF0 + len(code)] = code
    path.write_bytes(image)
    return str(path)


def documented() -> set[str]:
    table = (ROOT / "docs" / "reference" / "events.md").read_text().split("## Phases")[0]
    return set(re.findall(r"`([a-z]+(?:\.[a-z]+)?)`", "\n".join(re.findall(r"^\| (`.*?) \|", table, re.MULTILINE))))


def objects(text: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in text.splitlines()]
    for one in found:
        assert {"event", "level", "timestamp"} <= set(one)
        assert one["event"] in documented()
    return found


Run = Callable[..., tuple[int, list[dict[str, Any]]]]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """A command line, in this process: its exit status and what it said on stderr."""

    def run_here(*arguments: str) -> tuple[int, list[dict[str, Any]]]:
        return run_app(arguments), objects(capfd.readouterr().err)

    return run_here


def run_apart(*arguments: str, **kwargs: Any) -> tuple[int, list[dict[str, Any]]]:
    done = subprocess.run(
        [*COMMAND, *arguments], stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False, **kwargs
    )
    return done.returncode, objects(done.stderr.decode())


def ends(told: list[dict[str, Any]]) -> str:
    (end,) = [one for one in told if one["event"] == "run.end"]
    return str(end["result"])


@pytest.mark.parametrize(
    ("code", "arguments", "result", "status"),
    [
        (RESET, (), "reset", 0),
        (HALT, (), "halted", 1),
        (FAULT, (), "fault", 1),
        (SPIN, ("--timeout", "0.1"), "timeout", 3),
        (SPIN, ("--timeout", "0.1", "--log-level", "error", "--progress", "auto"), "timeout", 3),
        (b"\xfb\xf4\xeb\xfd", (), "hang", 1),
    ],
)
def test_every_end_of_a_guest(
    code: bytes, arguments: tuple[str, ...], result: str, status: int, tmp_path: Path, run: Run
) -> None:
    code_is, told = run("run", "--bios", firmware(tmp_path, code), "-m", "1M", "-P", "no:sev", *JSON, *arguments)
    assert (code_is, ends(told)) == (status, result)
    if status:
        assert told[-1]["event"] == "error"
        assert told[-1]["status"] == status
        assert told[-1]["text"].startswith(f"the guest did not end in order: {result}, ")


def test_the_embedded_guest_and_its_warnings(run: Run) -> None:
    status, told = run("run", *JSON, "--log-level", "debug")
    assert (status, ends(told)) == (0, "shutdown")
    names = [one["event"] for one in told]
    assert {"warning", "launch.measure", "run.phase", "run.summary"} <= set(names)
    assert [one["phase"] for one in told if one["event"] == "run.phase"] == ["measure", "firmware"]


def test_a_panic(tmp_path: Path, run: Run) -> None:
    status, told = run("run", "--bios", panicking(tmp_path), "-P", "no:sev", *JSON, "--serial", "null")
    assert (status, ends(told)) == (1, "panic")
    assert told[-1]["text"] == ("the guest did not end in order: panic, Kernel panic - not syncing: no init")


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        (("run", "--bios", "/missing"), 2, "--bios /missing: No such file or directory"),
        (("run", "--memory", "1x"), 2, "-m 1x"),
        (("run", "--no-such-option"), 2, "No such option"),
        (("nothing",), 2, "No such command"),
        (("run", "-P", "no:such"), 2, "-P no:such: no such plug-in is installed"),
        (("run", "--progress", "on"), 2, "--progress on: with --log-format json stderr has JSON only"),
        (("run", "--log-file", "/missing/log"), 2, "--log-file /missing/log: No such file or directory"),
        (("run", "--object", "sev-emulated,id=s,cbitpos=51,reduced-phys-bits=1,policy=0xff0001"), 4, "LAUNCH_START"),
        (("qemu", "-device", "nothing"), 2, "-device"),
    ],
)
def test_what_never_runs_is_one_object_too(arguments: tuple[str, ...], status: int, text: str, run: Run) -> None:
    code, told = run(*arguments, *(JSON if arguments[0] != "nothing" else ("--log-format=json",)))
    assert code == status
    assert told[-1]["event"] == told[-1]["level"] == "error"
    assert told[-1]["status"] == status
    assert told[-1]["text"].startswith(text)
    assert [one["event"] for one in told].count("error") == 1


def foreign(folder: Path, what: str) -> dict[str, Any]:
    """The environment in which a plug-in named foreign does ``what`` while the machine is built."""
    (folder / "foreign_plugin.py").write_text(FOREIGN.format(what=what))
    info = folder / "foreign_dist-2.5.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: foreign-dist\nVersion: 2.5\n")
    (info / "entry_points.txt").write_text("[sevplug]\nforeign = foreign_plugin\n")
    return {"env": {**os.environ, "PYTHONPATH": str(folder)}}


def test_a_plugin_that_fails(tmp_path: Path) -> None:
    status, told = run_apart("run", "-P", "foreign", *JSON, **foreign(tmp_path, "raise RuntimeError('in\\ntwo lines')"))
    assert status == 2
    assert told[-1]["text"] == (
        "plug-in 'foreign' from foreign-dist 2.5 failed in machine_init (RuntimeError: in two lines, "
        "foreign_plugin.py:7); leave it out with -P no:foreign"
    )


def test_a_plugin_whose_thread_fails_and_one_that_is_warned_of(tmp_path: Path) -> None:
    thread = "t = threading.Thread(target=lambda: 1 / 0, name='foreign'); t.start(); t.join()"
    status, told = run_apart("run", "-P", "foreign", *JSON, **foreign(tmp_path, f"{thread}; warnings.warn('old')"))
    assert status == 0
    (failed,) = [one for one in told if one["event"] == "error"]
    assert failed["text"] == "in thread foreign: ZeroDivisionError: division by zero"
    assert "Traceback" in failed["traceback"]
    assert "UserWarning: old" in [one["text"] for one in told if one["event"] == "warning"]


def test_an_error_of_sevplugs_own_comes_with_its_traceback(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Serial, "attach", lambda _self, _machine: 1 / 0)
    monkeypatch.setattr(PluginManager, "blame", lambda _self, _error: None)
    status, told = run("run", *JSON)
    assert status == 1
    assert told[-1]["text"] == "ZeroDivisionError: division by zero"
    assert "Traceback (most recent call last)" in told[-1]["traceback"]


def test_ctrl_c(tmp_path: Path) -> None:
    arguments = ["run", "--bios", firmware(tmp_path, SPIN), "-m", "1M", "-P", "no:sev", *JSON]
    with subprocess.Popen([*COMMAND, *arguments], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        first = []
        while not first or "run.resume" not in first[-1]:
            first.append(process.stderr.readline())
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
        assert process.wait(20) == 130
    assert ends(objects("".join(first) + rest)) == "quit"


def test_a_log_file_ends_with_the_error(tmp_path: Path, run: Run) -> None:
    log = tmp_path / "log"
    arguments = ("--object", "sev-emulated,id=s,cbitpos=51,reduced-phys-bits=1,policy=0xff0001")
    status, told = run("run", *arguments, *JSON, "--log-file", str(log))
    assert (status, len(told)) == (4, 1)
    assert objects(log.read_text())[-1]["text"] == told[0]["text"]


def test_on_a_terminal_there_is_no_progress_among_the_objects(tmp_path: Path) -> None:
    arguments = ["run", "--bios", firmware(tmp_path, SPIN), "-m", "1M", "-P", "no:sev", "--timeout", "1.5", *JSON]
    with at_a_terminal(*COMMAND, *arguments, "--serial", "null") as user:
        user.wait_for(rb'"status": 3.*\r\n')
        assert user.process.wait(20) == 3
    assert "error" in [one["event"] for one in objects(user.seen.decode().replace("\r\n", "\n"))]
