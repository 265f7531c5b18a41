"""A machine around a small guest, for tests: two ports, any plug-ins, and what is left when it has ended.

The board is a POST port that records what the guest writes to it (0x80) and a port that ends the run in order (0xF4).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import attrs
from assembler import assemble

from sevplug.core.bus import Device
from sevplug.core.config import BootImages, Image, MachineConfig
from sevplug.core.hookspecs import hookimpl
from sevplug.core.machine import Machine
from sevplug.core.plugins import PluginManager, plug_in_name
from sevplug.core.result import RunResult

REPORT_PORT, END_PORT = 0x80, 0xF4
MIB = 1 << 20
LOW_MEMORY = 1 << 20
REGISTERS = (
    "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", *(f"r{number}" for number in range(8, 16)),
    "rip", "rflags", "cr0", "cr2", "cr3", "cr4", "efer",
)  # fmt: skip


class TestBoard(Device):
    """The two ports; ``written`` holds (port, size, value) of every OUT to the report port."""

    name = "test board"
    __test__ = False

    def __init__(self) -> None:
        self.written: list[tuple[int, int, int]] = []
        self.on_write: Callable[[], object] = lambda: None

    def attach(self, machine: Machine) -> None:
        machine.bus.claim_ports(REPORT_PORT, 1, None, self._report, self.name)
        machine.bus.claim_ports(
            END_PORT, 1, None, lambda _port, _size, value: machine.shutdown_request(f"port 0xf4 got {value}"), self.name
        )

    def _report(self, *access: int) -> None:
        self.written.append(access)  # type: ignore[arg-type]
        self.on_write()

    def save(self) -> dict[str, Any]:
        return {"written": [list(access) for access in self.written]}

    def load(self, state: Mapping[str, Any]) -> None:
        self.written[:] = [(port, size, value) for port, size, value in state["written"]]


class TestBoardPlugin:
    """Brings the board, and keeps every event that the machine tells of."""

    name = "test-board"
    __test__ = False

    def __init__(self) -> None:
        self.board = TestBoard()
        self.events: list[tuple[str, Mapping[str, Any]]] = []

    @hookimpl
    def add_devices(self, machine: Machine) -> None:
        machine.add_device(self.board)

    @hookimpl
    def snapshot_save(self) -> None:
        """Events have happened, whatever the guest goes back to."""

    @hookimpl
    def notify(self, event: str, fields: Mapping[str, Any]) -> None:
        self.events.append((event, fields))


@attrs.frozen
class GuestRun:
    """What is left of a guest.

    ``ports_written``: the values of the OUTs to port 0x80, in order.  ``registers``: by the names of `REGISTERS`, at
    the end.  ``memory``: the first MiB of guest memory at the end.  ``events``: (name, fields) of every ``notify``.
    """

    result: RunResult
    ports_written: list[int]
    counters: dict[str, int]
    registers: dict[str, int] = attrs.field(repr=False)
    memory: bytes = attrs.field(repr=False)
    events: list[tuple[str, Mapping[str, Any]]] = attrs.field(repr=False)


def manager_with(*plugins: object) -> PluginManager:
    """A manager with ``plugins`` and no others."""
    manager = PluginManager()
    for plugin in plugins:
        manager.add(plugin, plug_in_name(plugin))
    manager.ready()
    return manager


@contextlib.contextmanager
def machine_with(
    firmware: bytes | None, *plugins: object, ram: int = 16 * MIB, **config: Any
) -> Iterator[tuple[Machine, TestBoardPlugin]]:
    """A machine that starts from ``firmware``, on the test board; ``config`` goes to `MachineConfig`."""
    board = TestBoardPlugin()
    boot = BootImages() if firmware is None else BootImages(firmware=Image(firmware, "guest"))
    settings = {"boot": boot, "memory": ram, **config}
    with Machine(MachineConfig(**settings), manager_with(board, *plugins)) as machine:
        yield machine, board


def run_guest(
    source: str | bytes, *, ram: int = 16 * MIB, plugins: Iterable[object] = (), timeout: float = 5.0, **config: Any
) -> GuestRun:
    """Assemble ``source`` (or take an image), run it from the reset vector to its end, and say what is left."""
    firmware = assemble(source) if isinstance(source, str) else source
    with machine_with(firmware, *plugins, ram=ram, **config) as (machine, board):
        result = machine.run(timeout=timeout)
        return GuestRun(
            result,
            [value for _port, _size, value in board.board.written],
            machine.engine.count(),
            {name: machine.cpu.get(name) for name in REGISTERS},
            machine.memory.read(0, min(LOW_MEMORY, ram)),
            board.events,
        )
