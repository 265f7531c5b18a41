"""``sevplug run`` at a terminal: raw while the guest listens, a way out, and the terminal as it was afterwards."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import echoing
import pytest
from terminals import COMMAND, HINT, LFLAG, at_a_terminal

pytestmark = pytest.mark.slow

QUIET = ["-P", "no:sev", "-P", "no:logging"]


def shell_words(*arguments: str) -> str:
    return shlex.join([*COMMAND, *arguments])


@pytest.fixture
def guest(tmp_path: Path) -> str:
    path = tmp_path / "guest.bin"
    path.write_bytes(echoing.sleeping())
    return str(path)


def test_keys_go_to_the_guest_and_ctrl_a_x_ends_the_run(guest: str) -> None:
    with at_a_terminal(*COMMAND, "run", "--bios", guest, *QUIET) as user:
        user.wait_for(re.escape(HINT))
        user.wait_for(rb"ok> ")
        assert user.raw
        assert not user.now[LFLAG] & termios.ISIG
        user.type(b"hello\r")
        user.wait_for(rb"HELLO\r+\n> ")
        assert b"hello" not in user.seen
        user.type(b"\x01h")
        user.wait_for(rb"Ctrl-A x +end the run\r\n")
        user.type(b"\x03\x01\x01.")
        user.wait_for(rb"\x03\x01\.")
        user.type(b"\x01x")
        assert user.process.wait(30) == 0
        assert user.now == user.settings
        assert user.seen.count(HINT) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_terminal_is_as_before_when_a_signal_ends_the_run(guest: str, number: signal.Signals) -> None:
    with at_a_terminal(*COMMAND, "run", "--bios", guest, *QUIET) as user:
        user.wait_for(re.escape(HINT))
        user.wait_for(rb"ok> ")
        user.process.send_signal(number)
        assert user.process.wait(30) == 128 + number
        assert user.now == user.settings


def test_the_terminal_is_as_before_when_a_device_fails(guest: str) -> None:
    failing = """
from sevplug.board.serial import Serial
taken = Serial.feed
def feed(self, data):
    taken(self, data)
    self._clock.start(__import__("sevplug.core.clock").core.clock.Timer(lambda: 1 / 0), self._clock.now)
Serial.feed = feed
from sevplug.cli import main
main()
"""
    with at_a_terminal(sys.executable, "-c", failing, "run", "--bios", guest, *QUIET) as user:
        user.wait_for(re.escape(HINT))
        user.wait_for(rb"ok> ")
        user.type(b"x")
        assert user.process.wait(30) == 1
        assert user.now == user.settings
        user.wait_for(rb"ZeroDivisionError")


def test_in_qemus_spelling_a_plain_stdio_leaves_ctrl_c_a_signal(guest: str) -> None:
    with at_a_terminal(*COMMAND, "qemu", "-bios", guest, "-serial", "stdio", "-P", "no:logging") as user:
        user.wait_for(rb"ok> ")
        user.type(b"\x01h")
        user.wait_for(rb"\x01H")
        assert user.raw
        user.type(b"\x03")
        assert user.process.wait(30) == 130
        assert user.now == user.settings
        assert HINT not in user.seen


def test_with_nographic_ctrl_c_is_the_guests(guest: str) -> None:
    with at_a_terminal(*COMMAND, "qemu", "-bios", guest, "-nographic", "-P", "no:logging") as user:
        user.wait_for(re.escape(HINT))
        user.wait_for(rb"ok> ")
        user.type(b"\x03q")
        user.wait_for(rb"\x03")
        user.type(b"\x01x")
        assert user.process.wait(30) == 0


def test_a_guest_that_does_not_listen_leaves_the_terminal_and_what_is_typed_alone(tmp_path: Path) -> None:
    path = tmp_path / "deaf.bin"
    path.write_bytes(echoing.deaf())
    script = f"{shell_words('run', '--bios', str(path), *QUIET)}; read -r line; echo next: $line"
    with at_a_terminal("sh", "-c", script) as user:
        user.type(b"a command\n")
        user.wait_for(rb"hello")
        user.wait_for(rb"next: a command")
        assert user.now == user.settings
        assert HINT not in user.seen


def test_in_the_background_the_run_goes_on_and_the_terminal_is_left_alone(guest: str) -> None:
    """A shell with job control runs it with "&", and brings it to the front later."""
    run = shell_words("run", "--bios", guest, *QUIET)
    state = "echo in$(cut -d' ' -f3 /proc/$!/stat)"
    script = f"set -m; {run} & sleep 1.5; {state}; fg >/dev/null; echo status $?"
    with at_a_terminal("bash", "-c", script) as user:
        user.wait_for(rb"ok> ")
        user.wait_for(rb"in[RS]\r\n")
        assert not user.raw
        user.wait_for(re.escape(HINT))
        user.type(b"x\x01x")
        user.wait_for(rb"status 0")
        assert user.now == user.settings


def test_after_a_stop_the_terminal_is_taken_again(guest: str) -> None:
    with at_a_terminal(*COMMAND, "run", "--bios", guest, *QUIET) as user:
        user.wait_for(re.escape(HINT))
        user.wait_for(rb"ok> ")
        user.process.send_signal(signal.SIGSTOP)
        os.waitpid(user.process.pid, os.WUNTRACED)
        termios.tcsetattr(user.keyboard, termios.TCSANOW, user.settings)  # as the shell does
        time.sleep(1.5)
        user.process.send_signal(signal.SIGCONT)
        deadline = time.monotonic() + 20
        while not user.raw:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        user.type(b"back\x01x")
        assert user.process.wait(30) == 0
        assert user.now == user.settings


# -- no terminal -----------------------------------------------------------------------------------------------------


def test_a_pipe_is_typed_to_the_guest(guest: str) -> None:
    done = subprocess.run(
        [*COMMAND, "run", "--bios", guest, *QUIET], input=b"word\rq", capture_output=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == b"ok> WORD\r\n> BYE"


def test_a_run_in_a_loop_does_not_eat_the_loops_list() -> None:
    words = shell_words("run", "-P", "no:logging")
    done = subprocess.run(
        ["sh", "-c", f'while read line; do echo "line $line"; {words} >/dev/null; done'],
        input=b"one\ntwo\n",
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == b"line one\nline two\n"


def test_closed_standard_input_is_no_error(guest: str) -> None:
    words = shell_words("run", "--bios", guest, *QUIET)
    done = subprocess.run(["sh", "-c", f"{words} --timeout 30 <&-"], capture_output=True, timeout=60, check=False)
    # Nobody can answer the guest, which waits for input.
    assert (done.returncode, done.stdout) == (1, b"ok> ")
    assert b"hang, halted at rip" in done.stderr
