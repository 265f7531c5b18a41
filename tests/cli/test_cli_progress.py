"""The line that says where a long launch or boot stands: on a terminal, and out of everybody's way."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import echoing
import pytest
from assembler import assemble
from terminals import HINT, Terminal, at_a_terminal

from sevplug.cli.app import run_app
from sevplug.plugins import progress

pytestmark = pytest.mark.slow

# All times a tenth of what they are, so that nobody has to wait.
TIMES = "from sevplug.plugins import progress\nprogress._LONG, progress._TICK, progress._SILENCE = 0.1, 0.02, 0.04\n"
MAIN = "from sevplug.cli import main; main()"
HURRIED = [sys.executable, "-c", TIMES + MAIN]
QUIET = ("-P", "no:sev", "-m", "1M")
SPIN = b"\xeb\xfe"
STATUS = rb"\r\x1b\[K +\d+\.\d s  firmware runs[^\r\n]*"


def firmware(folder: Path, code: bytes) -> str:
    path = folder / "firmware.bin"
    path.write_bytes(bytes(0xFF0) + code.ljust(16, b"\xf4"))
    return str(path)


# The guest's words come slowly: the machine rests before the first and behind each piece of output.
SLOW = (
    "import time\n"
    "from sevplug.board.serial import Serial\n"
    "attach = Serial.attach\n"
    "def attach_and_rest(self, machine):\n"
    "    attach(self, machine)\n"
    "    self.on_output.append(lambda _piece: time.sleep(0.4))\n"
    "    time.sleep(0.4)\n"
    "Serial.attach = attach_and_rest\n"
)


ONE, TWO, END = b"one\n", b"two", b"!\n"


def talking(folder: Path) -> str:
    """A guest that prints a line, and a second one in two pieces."""

    def say(text: bytes) -> str:
        return "".join(f"mov al, {byte}\n out dx, al\n" for byte in text)

    # A piece is passed on after 10 ms of virtual time, which is as many accesses to a port as there are microseconds.
    wait = "mov cx, 12000\n1: in al, 0x80\n loop 1b\n"
    path = folder / "talking.bin"
    path.write_bytes(assemble(f"mov dx, 0x3f8\n{say(ONE)}{say(TWO)}{wait}{say(END)}mov al, 0xfe\n out 0x64, al\n hlt"))
    return str(path)


def screen(output: bytes) -> list[str]:
    """What is to be seen of ``output`` at the end, by a terminal that knows what is used here."""
    lines, column = [""], 0
    for found in re.finditer(rb"\x1b\[K|\x1b\[[0-9;]*m|\r|\n|[^\x1b\r\n]+|\x1b", output):
        word = found[0]
        if word == b"\x1b[K":
            lines[-1] = lines[-1][:column]
        elif word == b"\r":
            column = 0
        elif word == b"\n":
            lines.append("")
        elif not word.startswith(b"\x1b"):
            text = word.decode()
            lines[-1] = lines[-1][:column] + text + lines[-1][column + len(text) :]
            column += len(text)
    return lines


def watch(user: Terminal, end: bytes = rb"sevplug: error: [^\r]*\r\n") -> bytes:
    user.wait_for(end)
    user.process.wait(20)
    return user.seen


def test_a_boot_of_more_than_a_second_says_where_it_stands_and_leaves_nothing_behind(tmp_path: Path) -> None:
    arguments = ["run", "--bios", firmware(tmp_path, SPIN), *QUIET, "--timeout", "0.5", "--serial", "null"]
    with at_a_terminal(*HURRIED, *arguments, "--log-level", "error") as user:
        seen = watch(user)
    shown = re.findall(STATUS, seen)
    assert len(shown) >= 2
    assert len(set(shown)) >= 2
    assert [line for line in screen(seen) if line and "sevplug: error" not in line and "run.end" not in line] == []


def test_on_a_pipe_there_is_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "_LONG", 0.1)
    arguments = ["run", "--bios", firmware(tmp_path, SPIN), *QUIET, "--timeout", "0.4", "--log-level", "error"]
    assert run_app(arguments) == 3
    told = capfd.readouterr().err
    assert "firmware runs" not in told
    assert "\x1b" not in told


def test_on_a_pipe_there_is_a_line_for_each_phase_where_it_is_asked_for(capfd: pytest.CaptureFixture[str]) -> None:
    assert run_app(["run", "--log-level", "error", "--progress", "on"]) == 0
    assert [line.split(maxsplit=1)[1] for line in capfd.readouterr().err.splitlines()] == [
        "the launch is measured",
        "firmware runs",
    ]


def test_it_can_be_switched_off(tmp_path: Path) -> None:
    arguments = [
        "run",
        "--bios",
        firmware(tmp_path, SPIN),
        *QUIET,
        "--timeout",
        "0.5",
        "--serial",
        "null",
        "--progress",
        "off",
    ]
    with at_a_terminal(*HURRIED, *arguments) as user:
        seen = watch(user)
    assert not re.search(STATUS, seen)


def test_the_guests_output_on_the_same_terminal_stays_whole(tmp_path: Path) -> None:
    arguments = ["run", "--bios", talking(tmp_path), *QUIET, "--log-level", "error"]
    with at_a_terminal(sys.executable, "-c", TIMES + SLOW + MAIN, *arguments) as user:
        user.wait_for(rb"!\r\n")
        assert user.process.wait(30) == 0
    assert [line for line in screen(user.seen) if line] == ["one", "two!"]
    # There before the first line and behind it, and never on one that is not finished.
    before, behind = user.seen.split(b"one\r\n")
    assert re.search(STATUS.replace(b"firmware runs", b"the machine is built"), before)
    assert re.search(STATUS, behind.split(b"two")[0])
    assert behind.split(b"two")[1] == b"!\r\n"


def test_the_last_line_of_a_serial_port_elsewhere_is_shown(tmp_path: Path) -> None:
    arguments = ["run", "--bios", talking(tmp_path), *QUIET, "--log-level", "error", "--serial", "file:/dev/null"]
    with at_a_terminal(sys.executable, "-c", TIMES + SLOW + MAIN, *arguments) as user:
        user.wait_for(STATUS[:-9] + rb"[^\r\n]*  one\r")


def test_it_is_gone_once_the_guest_asks_for_what_is_typed(tmp_path: Path) -> None:
    path = tmp_path / "guest.bin"
    path.write_bytes(echoing.sleeping())
    arguments = ["run", "--bios", str(path), *QUIET, "--timeout", "0.8", "--log-level", "error"]
    # Output is elsewhere, so that it would not be in the way.
    with at_a_terminal("sh", "-c", f"exec {shlex.join([*HURRIED, *arguments])} >/dev/null") as user:
        seen = watch(user)
    assert HINT in seen
    assert not re.search(STATUS, seen.partition(HINT)[2])


def test_a_run_that_is_over_before_it_is_long_shows_none_of_it(tmp_path: Path) -> None:
    patient = "from sevplug.plugins import progress\nprogress._LONG = 600\n" + MAIN
    arguments = ["run", "--bios", firmware(tmp_path, SPIN), *QUIET, "--timeout", "0.3", "--log-level", "error"]
    with at_a_terminal(sys.executable, "-c", patient, *arguments, "--serial", "null") as user:
        seen = watch(user)
    assert not re.search(STATUS, seen)
