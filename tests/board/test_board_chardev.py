"""The host's end of a port: escape keys, input that is fetched when it is wanted, clients that come and go."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import echoing
import pytest

from sevplug.board.chardev.escape import EscapeFilter
from sevplug.core.config import BootImages, Image, MachineConfig
from sevplug.core.machine import Machine
from sevplug.core.plugins import Selection, load_plugins
from sevplug.core.result import RunResult

GUESTS = pytest.mark.parametrize("guest", [echoing.polling, echoing.sleeping], ids=["polling", "sleeping"])


@pytest.mark.parametrize(
    ("pieces", "kept", "actions"),
    [
        ([b"plain\r\x03\x04"], b"plain\r\x03\x04", []),
        ([b"a\x01xb"], b"a", ["x"]),
        ([b"a\x01", b"X"], b"a", ["x"]),
        ([b"\x01\x01x"], b"\x01x", []),
        ([b"\x01h\x01?."], b".", ["h", "h"]),
        ([b"\x01c!"], b"!", []),
    ],
)
def test_ctrl_a_and_the_key_behind_it_are_kept_back(pieces: list[bytes], kept: bytes, actions: list[str]) -> None:
    keys = EscapeFilter()
    assert b"".join(map(keys.feed, pieces)) == kept
    assert keys.actions == actions


@attrs.define
class Running:
    """A machine that runs on a thread of its own."""

    machine: Machine
    serial: Any
    thread: threading.Thread
    run: RunResult | None = None

    def wait(self) -> RunResult:
        self.thread.join(20)
        assert self.run is not None
        return self.run

    def wait_for(self, text: bytes) -> None:
        deadline = time.monotonic() + 20
        while text not in self.serial.output:
            assert time.monotonic() < deadline, bytes(self.serial.output)
            time.sleep(0.005)


@contextlib.contextmanager
def running(firmware: bytes, serial: str) -> Iterator[Running]:
    boot = BootImages(firmware=Image(firmware, "guest"))
    plugins = load_plugins(Selection.parse(["no:qmp", "no:logging", "no:sev"]))
    with Machine(MachineConfig(boot=boot, memory=16 << 20, serial=serial), plugins) as machine:

        def work() -> None:
            found.run = machine.run(timeout=20)

        found = Running(machine, machine.private["serial"], threading.Thread(target=work))
        found.thread.start()
        try:
            yield found
        finally:
            machine.control.submit(machine.quit)
            found.thread.join()


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The writing end of a pipe that is standard input."""
    reading, writing = os.pipe()
    with os.fdopen(reading) as stream:
        monkeypatch.setattr(sys, "stdin", stream)
        yield writing
    with contextlib.suppress(OSError):
        os.close(writing)


def connect(found: Running) -> socket.socket:
    kind, _, where = found.serial.address.partition(":")
    if kind == "unix":
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(20)
        client.connect(where)
        return client
    host, _, port = where.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=20)


def read_until(client: socket.socket, text: bytes) -> bytes:
    said = b""
    while not said.endswith(text):
        data = client.recv(100)
        assert data, said
        said += data
    return said


# -- standard input --------------------------------------------------------------------------------------------------


@GUESTS
def test_a_pipe_is_typed_to_the_guest_and_its_end_ends_nothing(guest: Callable[[], bytes], typed: int) -> None:
    os.write(typed, b"first words, longer than the port\r")
    with running(guest(), "stdio") as found:
        found.wait_for(b"FIRST WORDS, LONGER THAN THE PORT\r\n> ")
        os.write(typed, b"more\r")
        os.close(typed)
        found.wait_for(b"MORE\r\n> ")
        assert found.run is None


def test_a_guest_that_never_listens_takes_nothing_from_a_pipe(typed: int) -> None:
    os.write(typed, b"for the next one")
    with running(echoing.deaf(), "stdio") as found:
        assert found.wait().result == "reset"
        found.wait_for(b"hello\n")
    assert os.read(sys.stdin.fileno(), 100) == b"for the next one"


def test_no_more_is_taken_from_a_pipe_than_the_guest_reads(typed: int) -> None:
    os.write(typed, b"q" + b"." * 100)
    with running(echoing.polling(), "stdio") as found:
        assert found.wait().result == "reset"
    assert len(os.read(sys.stdin.fileno(), 200)) >= 100 - 2 * 16


def test_without_standard_input_the_guest_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with running(echoing.polling(), "stdio") as found:
        found.wait_for(b"ok> ")
        assert found.run is None


# -- sockets ---------------------------------------------------------------------------------------------------------


@GUESTS
@pytest.mark.parametrize("where", ["unix:{}/serial", "tcp:127.0.0.1:0"], ids=["unix", "tcp"])
def test_a_client_talks_to_the_guest(guest: Callable[[], bytes], where: str, tmp_path: Path) -> None:
    with running(guest(), where.format(tmp_path)) as found, connect(found) as client:
        client.sendall(b"hello, a line longer than the port\r")
        assert b"HELLO, A LINE LONGER THAN THE PORT\r\n" in read_until(client, b"\r\n> ")
        client.sendall(b"q")
        assert found.wait().result == "reset"
        found.machine.close()
        assert b"".join(iter(lambda: client.recv(10), b"")) == b"BYE"
    assert not list(tmp_path.iterdir())


def test_clients_come_and_go_one_at_a_time(tmp_path: Path) -> None:
    with running(echoing.sleeping(), f"unix:{tmp_path}/serial") as found:
        found.wait_for(b"ok> ")
        with connect(found) as first, connect(found) as second:
            second.sendall(b"second")
            first.sendall(b"first")
            assert read_until(first, b"FIRST").removeprefix(b"ok> ") == b"FIRST"
            first.close()
            assert read_until(second, b"SECOND") == b"SECOND"
        # What comes while nobody is there is dropped, what a client sent before it left is not.
        with connect(found) as third:
            third.sendall(b"x" * 100)
        found.wait_for(b"X" * 100)
        with connect(found) as fourth:
            fourth.sendall(b"still there")
            assert read_until(fourth, b"STILL THERE").strip(b"X") == b"STILL THERE"


def test_a_client_that_does_not_read_holds_up_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sevplug.board.chardev.server._UNSENT", 1000)
    with running(echoing.sleeping(), f"unix:{tmp_path}/serial") as found, connect(found) as client:
        found.wait_for(b"ok> ")
        done = threading.Event()

        def write() -> None:
            for _ in range(1000):
                found.serial._source.write(b"." * 1000)
            done.set()

        found.machine.control.submit(write)
        assert done.wait(20)
        assert client.recv(100)


def test_the_machine_waits_for_its_first_client(tmp_path: Path) -> None:
    path = str(tmp_path / "serial")
    said = []

    def come() -> None:
        with socket.socket(socket.AF_UNIX) as client:
            time.sleep(0.05)
            while client.connect_ex(path):
                time.sleep(0.005)
            said.append(b"")
            said.append(read_until(client, b"ok> "))

    visitor = threading.Thread(target=come)
    visitor.start()
    with running(echoing.polling(), f"unix:{path},server=on"):
        assert said
        visitor.join(20)
    assert said == [b"", b"ok> "]
