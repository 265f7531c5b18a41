"""A client of GDB's remote protocol that sees every packet, and a machine that it debugs."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from machines import TestBoardPlugin, manager_with

from sevplug.core.config import BootImages, Image, MachineConfig
from sevplug.core.machine import Machine
from sevplug.core.plugins import PluginManager
from sevplug.core.result import RunResult
from sevplug.plugins import gdb

MIB = 1 << 20


class Debugger:
    """A client; what does not come fails the test after a while."""

    def __init__(self, path: Path | str, *, no_ack: bool = True) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(10)
        self.socket.connect(str(path))
        self._buffer = b""
        self._acks = True
        if no_ack:
            self.stop_acks()

    def stop_acks(self) -> None:
        """Agree that packets are not acknowledged; ConnectionError when the server sends this client away."""
        answer = self.ask(b"QStartNoAckMode")
        if not answer:
            raise ConnectionResetError
        assert answer == b"OK"
        self._acks = False

    def send(self, data: bytes) -> None:
        """Bytes as they are."""
        self.socket.sendall(data)

    def byte(self) -> bytes:
        """The next byte; empty when the server has hung up."""
        if not self._buffer:
            self._buffer = self.socket.recv(65536)
        first, self._buffer = self._buffer[:1], self._buffer[1:]
        return first

    def packet(self) -> bytes:
        """The data of the next packet, acknowledgments left out; empty when the server has hung up."""
        while (byte := self.byte()) != b"$":
            if not byte:
                return b""
            assert byte == b"+", byte
        data = b""
        while (byte := self.byte()) != b"#":
            data += byte
        assert int(self.byte() + self.byte(), 16) == sum(data) & 0xFF
        if self._acks:
            self.send(b"+")
        return data

    def start(self, data: bytes) -> None:
        """Send a packet whose answer, if there is one, comes later."""
        self.send(b"$%s#%02x" % (data, sum(data) & 0xFF))

    def ask(self, data: bytes) -> bytes:
        """Send a packet; its answer."""
        self.start(data)
        return self.packet()

    def interrupt(self) -> bytes:
        """Ctrl-C; the stop reply."""
        self.send(b"\x03")
        return self.packet()

    def register(self, number: int) -> int:
        return int.from_bytes(bytes.fromhex(self.ask(b"p%x" % number).decode()), "little")

    @property
    def rip(self) -> int:
        return self.register(16)

    def memory(self, address: int, size: int) -> bytes:
        answer = self.ask(b"m%x,%x" % (address, size))
        assert re.fullmatch(rb"([0-9a-f]{2})+", answer), answer
        return bytes.fromhex(answer.decode())

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> Debugger:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()


class Debugged:
    """A real machine on a thread of its own, with the plug-in `gdb` at the socket ``path``."""

    def __init__(self, machine: Machine, board: TestBoardPlugin, path: Path) -> None:
        self.machine, self.board, self.path = machine, board, path
        self.run: RunResult | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        self.run = self.machine.run(timeout=60)

    def debugger(self, *, no_ack: bool = True) -> Debugger:
        return Debugger(self.path, no_ack=no_ack)

    def next_debugger(self) -> Debugger:
        """One that comes when the server has seen that the one before has left."""
        deadline = time.monotonic() + 10
        while True:
            try:
                return self.debugger()
            except ConnectionError:
                assert time.monotonic() < deadline
                time.sleep(0.01)

    def on_machine(self, function: Any) -> Any:
        """Have the machine's thread call ``function``; its result."""
        return self.machine.control.submit(function).result(10)

    @property
    def written(self) -> list[int]:
        """What the guest wrote to port 0x80."""
        return [value for _port, _size, value in self.board.board.written]

    def finish(self) -> str:
        """Wait for the end; how it ended."""
        self._thread.join(10)
        assert self.run is not None, "the guest goes on"
        return self.run.result

    def close(self) -> None:
        self.machine.control.submit(lambda: self.machine.end("quit", "the test is over"))
        self._thread.join()
        self.machine.close()


def with_gdb(*plugins: object) -> PluginManager:
    manager = manager_with(*plugins)
    manager.add(gdb, "gdb")
    return manager


@contextlib.contextmanager
def debugged(
    firmware: bytes, folder: Path, *plugins: object, paused: bool = True, ram: int = 16 * MIB, **config: Any
) -> Iterator[Debugged]:
    """A guest that starts from ``firmware`` on the test board; ``paused``: it waits for its debugger."""
    board = TestBoardPlugin()
    options = {"gdb": f"unix:{folder / 'gdb'}", **config.pop("options", {})}
    settings = MachineConfig(
        boot=BootImages(firmware=Image(firmware, "guest")), memory=ram, paused=paused, options=options, **config
    )
    found = Debugged(Machine(settings, with_gdb(board, *plugins)), board, folder / "gdb")
    try:
        yield found
    finally:
        found.close()
