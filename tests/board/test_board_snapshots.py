"""Every device saves all of its state: what is held back is named here, and why."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
from snapshots import plain_attributes

from sevplug.board.console import Console
from sevplug.board.disk import Disk, DiskSpec
from sevplug.board.pc import add_pc
from sevplug.board.pci import PciHost
from sevplug.board.serial import Serial
from sevplug.board.virtio.block import BlockDevice
from sevplug.core.bus import Device
from sevplug.core.config import MachineConfig
from sevplug.core.errors import SnapshotError
from sevplug.core.snapshot import encoding

# Attributes that a guest cannot change: what a part is and how it is wired; and what is the host's.
FIXED = {
    "_Chip": {"_elcr_mask", "_cascade"},
    "PciFunction": {"name", "writable", "interrupt_pin", "_power_on"},
    "PciBar": {"index", "size"},
    "VirtQueue": {"max_size"},
    "VirtioDevice": {"offered"},
    "MsixTable": {"vectors"},
    "BlockBackend": {"name", "features", "config", "_identity"},
    "Disk": {"path", "option", "_file", "_known_digest"},
    "DebugConsole": {"_where"},
    "Serial": {"_asked", "_source"},
    "FwCfg": {"_files", "_let_go"},
    "PciHost": {"_window"},
    "SharedInput": {"_high"},  # the sum of what is saved
}
# Parts of a device that hold state of their own, by attribute.
PARTS = (
    "_master", "_slave", "timer", "_counters", "_sent", "_inputs", "_functions", "function", "_device", "queues",
    "_msix", "disk", "backend", "_disk", "bars", "_item",
)  # fmt: skip
NAMES_OF_CLASS = {"HostBridge": "PciFunction", "IsaBridge": "PciFunction", "_PmFunction": "PciFunction"}
NAMES_OF_CLASS["VirtioPci"] = "PciFunction"


@pytest.fixture
def image(tmp_path: Path) -> str:
    path = tmp_path / "disk"
    path.write_bytes(bytes(range(256)) * 64)
    return str(path)


@pytest.fixture
def build(make_board: Any, image: str) -> Callable[[], Any]:
    """Makes PCs with the same disk."""

    def build_one() -> Any:
        machine = make_board(MachineConfig(memory=16 << 20))
        add_pc(machine)
        machine.add_device(BlockDevice(Disk(DiskSpec(image))))
        return machine

    return build_one


def parts_of(machine: Any) -> Iterator[tuple[str, object]]:
    """(path, part) for each part of each device that may hold a state, once."""
    seen: set[int] = set()

    def walk(thing: object, path: str) -> Iterator[tuple[str, object]]:
        if id(thing) in seen or isinstance(thing, int | bytes | bytearray | deque | None):
            return
        seen.add(id(thing))
        yield path, thing
        for name in PARTS:
            part = getattr(thing, name, None)
            several = list(part.values()) if isinstance(part, dict) else part if isinstance(part, list) else [part]
            for number, one in enumerate(several):
                yield from walk(one, f"{path}.{name}[{number}]")

    for device in machine.devices:
        yield from walk(device, device.name)


def changeable(part: object) -> dict[str, Any]:
    """The plain attributes of a part that are not fixed."""
    kind = type(part).__name__
    fixed = FIXED.get(kind, set()) | FIXED.get(NAMES_OF_CLASS.get(kind, ""), set()) | {"name"}
    return {name: value for name, value in plain_attributes(part).items() if name not in fixed}


def state_of(machine: Any) -> dict[str, Any]:
    """Every plain attribute of every part of every device, but for what is fixed."""
    return {f"{path}.{name}": value for path, part in parts_of(machine) for name, value in changeable(part).items()}


def disturb(machine: Any) -> int:
    """Change every plain attribute to another value of its kind; how many there were."""
    count = 0
    for _path, part in list(parts_of(machine)):
        for name, value in changeable(part).items():
            changed = other(name, value)
            if changed is None or isinstance(part, Disk):
                continue
            try:
                setattr(part, name, changed)
            except attrs.exceptions.FrozenInstanceError:
                if not isinstance(value, bytearray):
                    continue  # a value, which nobody can change
                value[:] = changed
            count += 1
    return count


def other(name: str, value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value ^ 1
    if isinstance(value, bytearray):
        return bytearray(byte ^ 1 for byte in value) or bytearray(b"said")
    if isinstance(value, bytes):
        return value + b"x"
    if isinstance(value, deque):
        return deque([(5, 0x20), (6, 0)] if name == "_queue" else [1, 2, 3])
    if isinstance(value, list) and value and all(type(element) is bool for element in value):
        return [not element for element in value]
    if isinstance(value, list) and all(type(element) is int for element in value):
        return [element ^ 1 for element in value] or ([9] if name == "_latched" else None)
    if isinstance(value, dict) and value and all(type(element) is int for element in value.values()):
        return {key: element ^ 1 for key, element in value.items()}
    if value is None and name in ("_status", "_write_low"):
        return 7
    return None


def saved(machine: Any) -> Any:
    machine.clock.save()
    return encoding.decode(*encoding.encode([dict(device.save()) for device in machine.devices]))


def put_back(machine: Any, states: Any, clock: dict[str, Any]) -> None:
    machine.clock.load(clock)
    for device, state in zip(machine.devices, states, strict=True):
        device.load(state)


def test_a_board_takes_up_the_whole_state_of_another(build: Callable[[], Any]) -> None:
    first, second = build(), build()
    disturbed = disturb(first)
    assert disturbed > 150
    # What selects an item, or is decoded at a place, has to be possible.
    first.private["fw_cfg"]._select(0x19)  # type: ignore[attr-defined]
    first.private["power"]._base = None  # type: ignore[attr-defined]
    put_back(second, saved(first), first.clock.save())
    mine, yours = state_of(first), state_of(second)
    assert {name: (mine[name], yours.get(name)) for name in mine if mine[name] != yours.get(name)} == {}


def test_timers_are_armed_again_in_their_order(build: Callable[[], Any]) -> None:
    first = build()
    for port, value in ((0x43, 0x34), (0x40, 0x10), (0x40, 0x20)):
        first.bus.io_write(port, 1, value)
    first.bus.io_write(0x70, 1, 0x0B)
    first.bus.io_write(0x71, 1, 0x42)
    first.bus.mmio_write(0xFEE00320, 4, 0x20040)
    first.bus.mmio_write(0xFEE00380, 4, 5000)
    first.bus.io_write(0x3F8, 1, 0x41)
    clock = first.clock.save()
    states = saved(first)
    assert first.clock.unsaved() == []
    second = build()
    put_back(second, states, clock)

    def due(machine: Any) -> list[tuple[int, int]]:
        return sorted(entry[:2] for entry in machine.clock._queue if entry[2] == entry[3]._generation)

    assert len(due(first)) == 4
    assert due(second) == due(first)


def test_what_a_guest_wrote_to_its_disk_comes_back_and_stays_apart(build: Callable[[], Any], image: str) -> None:
    machine = build()
    (device,) = (device for device in machine.devices if isinstance(device, BlockDevice))
    disk = device.disk
    disk.write(600, b"written before")
    state = disk.save()
    disk.write(602, b"after")
    disk.write(9000, b"after")
    assert dict(state["blocks"])[0][600:614] == b"written before"
    disk.load(state)
    assert disk.read(600, 14) == b"written before"
    assert disk.read(9000, 5) == Path(image).read_bytes()[9000:9005]


def test_another_disk_is_refused_and_a_touched_one_is_looked_at(image: str, tmp_path: Path) -> None:
    state = Disk(DiskSpec(image)).save()
    copy = tmp_path / "copy"
    copy.write_bytes(Path(image).read_bytes())
    Disk(DiskSpec(str(copy))).load(state)
    copy.write_bytes(bytes(len(Path(image).read_bytes())))
    for spec in (DiskSpec(str(copy)), DiskSpec(image, read_only=True)):
        with pytest.raises(SnapshotError, match=r"^--disk .*: not the disk that the snapshot was made with$"):
            Disk(spec).load(state)


@pytest.mark.parametrize("value", [None, -1, "x", [], {}, b"", [1], [[1]]])
def test_a_state_that_is_none_is_refused_by_what_can_be_expected(build: Callable[[], Any], value: Any) -> None:
    """Each value of each device's state is replaced; whatever comes is one of the errors that are one line."""
    machine = build()
    states = saved(machine)
    for number, state in enumerate(states):
        device: Device = machine.devices[number]
        for key in state:
            if state[key] == value:
                continue
            try:
                device.load({**state, key: value})
            except (KeyError, TypeError, ValueError, IndexError, AttributeError, SnapshotError):
                continue


def test_a_console_forgets_what_was_not_said(build: Callable[[], Any]) -> None:
    machine = build()
    console = Console(machine)  # type: ignore[arg-type]
    serial = machine.private["serial"]
    assert isinstance(serial, Serial)
    state = serial.save()
    for byte in b"lost\n":
        machine.bus.io_write(0x3F8, 1, byte)
    serial.load(state)
    for listener in machine.on_restore:
        listener()
    for byte in b"kept\n":
        machine.bus.io_write(0x3F8, 1, byte)
    assert console.output == b"kept\n"
    assert bytes(console._heard._unread) == b"kept\n"


def test_the_bus_decodes_where_the_guest_put_things(build: Callable[[], Any]) -> None:
    first, second = build(), build()
    pci, power = 1 << 31 | 1 << 11 | 3 << 8, first.private["power"]
    for register, value in ((0x40, 0xB001), (0x80, 1)):
        first.bus.io_write(0xCF8, 4, pci | register)
        first.bus.io_write(0xCFC, 4, value)
    first.bus.io_write(0xB002, 2, 0x0101)
    put_back(second, saved(first), first.clock.save())
    assert second.bus.io_read(0xB002, 2) == 0x0101 == first.bus.io_read(0xB002, 2)
    assert power._base == second.private["power"]._base == 0xB000  # type: ignore[attr-defined]
    for machine in (first, second):
        assert isinstance(machine.private["pci"], PciHost)
    put_back(first, saved(build()), first.clock.save())
    assert first.bus.io_read(0xB002, 2) == 0xFFFF
