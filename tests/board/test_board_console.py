"""Talking to a guest that runs in this process: what is typed reaches it, and what it says is waited for."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import echoing
import pytest
from machines import machine_with

from sevplug.board.console import Console, ConsoleError
from sevplug.core.config import BootImages, Image, MachineConfig
from sevplug.core.errors import ConfigError
from sevplug.core.machine import Machine
from sevplug.core.plugins import Selection, load_plugins

GUESTS = pytest.mark.parametrize("guest", [echoing.polling, echoing.sleeping], ids=["polling", "sleeping"])


@contextmanager
def talking(firmware: bytes, **config: Any) -> Iterator[tuple[Machine, Console]]:
    settings = {"boot": BootImages(firmware=Image(firmware, "guest")), "memory": 16 << 20, **config}
    plugins = load_plugins(Selection.parse(["no:qmp", "no:logging", "no:sev"]))
    with Machine(MachineConfig(**settings), plugins) as machine:
        yield machine, Console(machine, timeout=20)


@GUESTS
def test_a_guest_is_talked_to(guest: Callable[[], bytes]) -> None:
    with talking(guest()) as (machine, console):
        console.expect("ok> $")
        console.send("hello\r")
        assert console.expect(rb"([A-Z]+)\r\n> ")[1] == b"HELLO"
        console.send("q")
        console.expect("BYE")
        assert machine.run(timeout=20).result == "reset"


@GUESTS
def test_more_than_a_fifo_arrives_in_order(guest: Callable[[], bytes]) -> None:
    text = "abcdefghijklmnopqrstuvwxyz".replace("q", "") * 4
    with talking(guest()) as (_machine, console):
        console.expect("> ")
        console.send(text + "\r")
        assert console.expect("([A-Z]+)\r\n")[1] == text.upper().encode()


def test_what_was_matched_is_used_up_and_the_rest_is_there() -> None:
    with talking(echoing.polling()) as (machine, console):
        console.expect("> ")
        console.send("one two\r")
        console.expect("TWO\r\n")
        with pytest.raises(ConsoleError):
            console.expect("ONE", timeout=0.01)
        console.send("\rq")
        console.expect("> \r\n> ")
        assert machine.run(timeout=20).result == "reset"
        now = machine.clock.now
        console.expect("BYE$")  # said already: nothing runs
        assert machine.clock.now == now
        assert console.output.endswith(b"BYE")


def test_a_pattern_that_does_not_come_in_time_shows_the_last_lines() -> None:
    with talking(echoing.sleeping()) as (_machine, console):
        console.expect("> ")
        console.send("help\r")
        console.expect("\r\n")
        with pytest.raises(ConsoleError) as caught:
            console.expect("login: ", timeout=0.1)
    assert str(caught.value) == (
        "b'login: ' did not come within 0.1 s; the last that the guest said:\n  | ok> HELP\n  | > "
    )


def test_a_guest_that_ends_first_is_told_apart() -> None:
    with talking(echoing.polling()) as (machine, console):
        console.expect("ok")
        console.send("q")
        with pytest.raises(ConsoleError, match=r"^b'login: ' did not come before the guest ended; .*\n  \| ok> BYE$"):
            console.expect("login: ")
        assert machine.run().result == "reset"


def test_half_a_line_at_the_end_is_found() -> None:
    with talking(echoing.polling()) as (_machine, console):
        console.expect("ok> ")
        console.send("aq")
        assert console.expect("AB(YE)$")[1] == b"YE"


@GUESTS
def test_two_conversations_are_the_same(guest: Callable[[], bytes]) -> None:
    def talk() -> tuple[bytes, int, dict[str, int], str]:
        with talking(guest()) as (machine, console):
            for word in ("alpha", "beta", "a line that does not fit into the port\r"):
                console.expect("[A-Z> ]$")
                console.send(word)
            console.expect("\r\n> ")
            console.send("q")
            assert machine.run(timeout=20).result == "reset"
            counters = machine.engine.count()
            del counters["fills"]
            memory = hashlib.sha256(machine.memory.read(0, 1 << 20)).hexdigest()
            return console.output, machine.clock.now, counters, memory

    assert talk() == talk()


def test_a_machine_without_a_port_is_refused() -> None:
    with machine_with(None) as (machine, _board), pytest.raises(ConfigError, match="the plug-in pc-board is off"):
        Console(machine)
