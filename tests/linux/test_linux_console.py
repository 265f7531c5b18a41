"""A shell in a real Linux guest, typed at by a program in this process and by a person at a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from parts import find_image
from terminals import COMMAND, HINT, at_a_terminal

from sevplug.board.console import Console
from sevplug.core.config import MIB, BootImages, Image, MachineConfig
from sevplug.core.machine import Machine
from sevplug.core.plugins import Selection, load_plugins

pytestmark = pytest.mark.linux

COMMAND_LINE = "console=ttyS0 sevplug.end=shell"
FILES = ("--kernel", "bzImage-coco"), ("--initrd", "initrd-coco.cpio.gz")


@contextmanager
def shell() -> Iterator[tuple[Machine, Console]]:
    """The CoCo guest, entered directly, at the first prompt of its shell."""
    (_, kernel), (_, initrd) = FILES
    images = BootImages(
        kernel=Image.load(find_image(kernel), "kernel"),
        initrd=Image.load(find_image(initrd), "initrd"),
        cmdline=COMMAND_LINE,
    )
    config = MachineConfig(boot=images, memory=256 * MIB)
    with Machine(config, load_plugins(Selection.parse(["no:qmp", "no:logging"]))) as machine:
        console = Console(machine, timeout=120)
        console.expect("/ # ")
        yield machine, console


@pytest.mark.parametrize(("command", "result"), [("poweroff -f", "shutdown"), ("reboot -f", "reset")])
def test_a_shell_answers_and_ends_the_guest(command: str, result: str) -> None:
    with shell() as (machine, console):
        console.send("echo $((6*7))\r")
        console.expect(r"\n42\r\n/ # ")
        console.send(command + "\r")
        assert machine.run(timeout=60).result == result


def test_two_conversations_with_a_shell_are_the_same() -> None:
    def talk() -> tuple[bytes, int]:
        with shell() as (machine, console):
            console.send("dmesg | wc -l; cat /proc/uptime\r")
            console.expect(r"\d+\r\n[\d.]+ [\d.]+\r\n/ # ")
            console.send("poweroff -f\r")
            assert machine.run(timeout=60).result == "shutdown"
            return console.output, machine.clock.now

    assert talk() == talk()


def test_a_person_at_a_terminal_uses_the_shell() -> None:
    files = [word for option, name in FILES for word in (option, str(find_image(name)))]
    arguments = ["run", *files, "--append", COMMAND_LINE, "-P", "no:logging"]
    with at_a_terminal(*COMMAND, *arguments) as user:
        user.wait_for(rb"/ # ", seconds=120)
        assert HINT in user.seen
        user.type(b"echo $((6*7))\r")
        user.wait_for(rb"\n42\r+\n/ # ")
        user.type(b"sleep 1000\r")
        user.wait_for(rb"sleep 1000\r+\n")
        user.type(b"\x03poweroff -f\r")
        assert user.process.wait(60) == 0
        assert user.now == user.settings
