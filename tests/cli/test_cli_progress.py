"""The line that says where a long launch or boot stands: on a terminal, and out of everybody's way."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import echoing
from assembler import assemble
from terminals import COMMAND, HINT, Terminal, at_a_terminal

# All times a fifth of what they are, so that nobody has to wait.
HURRIED = [
    sys.executable,
    "-c",
    "from sevplug.plugins import progress\n"
    "progress._LONG, progress._TICK, progress._SILENCE = 0.2, 0.04, 0.08\n"
    "from sevplug.cli import main; main()",
]
QUIET = ("-P", "no:sev", "-m", "1M")
SPIN = b"\xeb\xfe"
STATUS = rb"\r\x1b\[K +\d+\.\d s  firmware runs[^\r\n]*"


def firmware(folder: Path, code: bytes) -> str:
    path = folder / "firmware.bin"
    path.write_bytes(bytes(0xFF0) + code.ljust(16, b"\xf4"))
    return str(path)


def talking(folder: Path) -> str:
    """A guest that prints ``one``, a newline and ``two``, with a long silence before and behind each."""
    wait = "mov ecx, 80000000\n1: dec ecx\n jnz 1b\n"
    say = "".join(f"mov al, {byte}\n out dx, al\n" for byte in b"one\n")
    more = "".join(f"mov al, {byte}\n out dx, al\n" for byte in b"two")
    rest = "".join(f"mov al, {byte}\n out dx, al\n" for byte in b"!\n")
    path = folder / "talking.bin"
    path.write_bytes(
        assemble(f"mov dx, 0x3f8\n{wait}{wait}{say}{wait}{wait}{more}{wait}{rest} mov al, 0xfe\n out 0x64, al\n hlt")
    )
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
    arguments = ["run", "--bios", firmware(tmp_path, SPIN), *QUIET, "--timeout", "0.8", "--serial", "null"]
    with at_a_terminal(*HURRIED, *arguments, "--log-level", "error") as user:
        seen = watch(user)
    shown = re.findall(STATUS, seen)
    assert len(shown) >= 2
    assert len(set(shown)) >= 2
    assert [line for line in screen(seen) if line and "sevplug: error" not in line and "run.end" not in line] == []


def test_a_short_run_shows_none_of_it() -> None:
    with at_a_terminal(*COMMAND, "run", "--log-level", "error") as user:
        user.wait_for(rb"done\r+\n")
        assert user.process.wait(20) == 0
    assert not re.search(STATUS, user.seen)


def test_on_a_pipe_there_is_nothing(tmp_path: Path) -> None:
    arguments = ["run", "--bios", firmware(tmp_path, SPIN), *QUIET, "--timeout", "0.5"]
    done = subprocess.run(
        [*HURRIED, *arguments, "--log-level", "error"], capture_output=True, timeout=60, check=False, text=True
    )
    assert "firmware runs" not in done.stderr
    assert "\x1b" not in done.stderr


def test_on_a_pipe_there_is_a_line_for_each_phase_where_it_is_asked_for() -> None:
    done = subprocess.run(
        [*COMMAND, "run", "--log-level", "error", "--progress", "on"],
        capture_output=True,
        timeout=60,
        check=True,
        text=True,
    )
    assert [line.split(maxsplit=1)[1] for line in done.stderr.splitlines()] == [
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
    with at_a_terminal(*HURRIED, *arguments) as user:
        user.wait_for(rb"!\r\n")
        assert user.process.wait(30) == 0
    assert [line for line in screen(user.seen) if line] == ["one", "two!"]
    # There before the first line and behind it, and never on one that is not finished.
    before, behind = user.seen.split(b"one\r\n")
    assert re.search(STATUS, before)
    assert re.search(STATUS, behind.split(b"two")[0])
    assert behind.split(b"two")[1] == b"!\r\n"


def test_the_last_line_of_a_serial_port_elsewhere_is_shown(tmp_path: Path) -> None:
    arguments = ["run", "--bios", talking(tmp_path), *QUIET, "--log-level", "error", "--serial", "file:/dev/null"]
    with at_a_terminal(*HURRIED, *arguments) as user:
        user.wait_for(STATUS[:-9] + rb"[^\r\n]*  one\r")


def test_it_is_gone_once_the_guest_asks_for_what_is_typed(tmp_path: Path) -> None:
    path = tmp_path / "guest.bin"
    path.write_bytes(echoing.sleeping())
    with at_a_terminal(
        *COMMAND, "run", "--bios", str(path), *QUIET, "--timeout", "0.8", "--log-level", "error"
    ) as user:
        seen = watch(user)
    assert HINT in seen
    assert not re.search(STATUS, seen.partition(HINT)[2])
