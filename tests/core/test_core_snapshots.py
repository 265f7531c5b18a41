"""Whose snapshot a machine takes up, and who lets none be made: refused by name, never left out in silence."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs
import pytest
from assembler import assemble
from machines import MIB, machine_with
from snapshots import finish, run_to

from sevplug.core.bus import Device
from sevplug.core.clock import Timer
from sevplug.core.errors import SnapshotError
from sevplug.core.hookspecs import hookimpl
from sevplug.core.machine import Machine
from sevplug.core.snapshot import SavedState, Snapshot
from sevplug.core.vcpu import CpuidRegisters, VCpu

MARK = 0x51
GUEST = f"mov al, {MARK}; out 0x80, al; .byte 0xeb, 0; mov eax, 0x40000000; cpuid; out 0x80, eax; out 0xf4, al"


class Stateless(Device):
    name = "stateless"

    def save(self) -> dict[str, Any]:
        return {}

    def load(self, state: Mapping[str, Any]) -> None:
        return


class Silent(Device):
    name = "silent"


class WithDevice:
    """Brings a device."""

    def __init__(self, device: Device) -> None:
        self.device = device

    @hookimpl
    def add_devices(self, machine: Machine) -> None:
        machine.add_device(self.device)

    @hookimpl
    def snapshot_save(self) -> None:
        return


def snapshot_with(
    *plugins: object, prepare: Callable[[Machine], object] = lambda _machine: None, **config: Any
) -> Snapshot:
    with machine_with(assemble(GUEST), *plugins, **config) as (machine, board):
        prepare(machine)
        run_to(machine, board, MARK)
        return machine.snapshot()


def refusal(*plugins: object, **more: Any) -> str:
    with pytest.raises(SnapshotError) as caught:
        snapshot_with(*plugins, **more)
    return str(caught.value)


def test_a_device_that_has_not_said_how_it_is_saved_is_named() -> None:
    assert refusal(WithDevice(Silent())) == "device silent has not said how it is saved"


def test_a_plug_in_with_attributes_and_no_hook_is_named() -> None:
    class Counting:
        name = "counting"

        def __init__(self) -> None:
            self.count = 0

    class Slotted:
        name = "slotted"
        __slots__ = ("count",)

    assert refusal(Counting()) == "plug-in 'counting' has state, and no hook snapshot_save that would save it"
    assert refusal(Slotted()) == "plug-in 'slotted' has state, and no hook snapshot_save that would save it"


def test_what_was_hung_on_the_machine_belongs_to_somebody_who_saves_it() -> None:
    class Hanging:
        name = "hanging"

        @hookimpl
        def machine_init(self, machine: Machine) -> None:
            machine.private["hanging-object"] = object()

    class Saving(Hanging):
        @hookimpl
        def snapshot_save(self) -> SavedState:
            return SavedState()

    assert refusal(Hanging()) == "'hanging-object' was hung on the machine by a plug-in without the hook snapshot_save"
    snapshot_with(Saving())


def test_a_timer_that_nobody_saves_is_named() -> None:
    def ring() -> None:
        return

    says = refusal(prepare=lambda machine: machine.clock.start(Timer(ring), 1 << 60))
    assert says.endswith("ring is armed, and nobody saves it")


def test_an_answer_that_is_no_state_is_refused() -> None:
    class Wrong:
        name = "wrong"

        @hookimpl
        def snapshot_save(self) -> Any:
            return {"a": 1}

    assert refusal(Wrong()) == "plug-in 'wrong': snapshot_save gave a dict, expected a SavedState"


def test_a_plug_ins_own_state_comes_back() -> None:
    class Numbering:
        name = "numbering"

        def __init__(self) -> None:
            self.number = 7

        @hookimpl
        def cpuid(self, cpu: VCpu, leaf: int) -> CpuidRegisters | None:
            if leaf != 0x40000000:
                return None
            self.number += 1
            return CpuidRegisters(self.number, 0, 0, 0)

        @hookimpl
        def snapshot_save(self) -> SavedState:
            return SavedState({"number": self.number})

        @hookimpl
        def snapshot_load(self, state: Mapping[str, Any]) -> None:
            self.number = int(state["number"])

    with machine_with(assemble(GUEST), Numbering()) as (machine, board):
        run_to(machine, board, MARK)
        snapshot = machine.snapshot()
        for _ in range(3):
            assert finish(machine, board).written == [MARK, 8]
            machine.restore(snapshot)
    with machine_with(assemble(GUEST)) as (plain, _board), pytest.raises(SnapshotError) as caught:
        plain.restore(snapshot)
    assert str(caught.value) == "snapshot: plug-ins: made with [['numbering', '', '']], this machine has []"


def test_secrets_of_a_plug_in_are_in_no_file_without_a_key(tmp_path: Path) -> None:
    class Knowing:
        name = "knowing"

        @hookimpl
        def snapshot_save(self) -> SavedState:
            return SavedState({"password": "swordfish"}, secret=True)

    snapshot = snapshot_with(Knowing())
    with pytest.raises(
        SnapshotError, match=r": plug-in knowing keeps secrets in it, so it needs a key: expected --sna"
    ):
        snapshot.save(str(tmp_path / "file"))
    snapshot.save(str(tmp_path / "file"), bytes(16))
    assert b"swordfish" not in (tmp_path / "file").read_bytes()
    assert "swordfish" not in repr(snapshot)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"ram": 32 * MIB}, f"memory (-m): made with {16 * MIB}, this machine has {32 * MIB}"),
        ({"seed": 5}, "seed: made with 0, this machine has 5"),
        ({"cpu": "EPYC"}, "CPU model: made with EPYC-Milan, this machine has EPYC"),
        ({"clock": "host"}, "clock: made with virtual, this machine has host"),
        ({"reboot": True}, "reboot: made with False, this machine has True"),
    ],
)
def test_another_configuration_is_refused_and_the_machine_is_unchanged(change: dict[str, Any], says: str) -> None:
    snapshot = snapshot_with()
    with machine_with(assemble(GUEST), **change) as (machine, board):
        with pytest.raises(SnapshotError) as caught:
            machine.restore(snapshot)
        assert str(caught.value) == f"snapshot: {says}"
        assert finish(machine, board).written == [MARK, 0]


def test_another_image_is_refused() -> None:
    snapshot = snapshot_with()
    with machine_with(assemble(GUEST + "; nop")) as (machine, _board), pytest.raises(SnapshotError) as caught:
        machine.restore(snapshot)
    assert str(caught.value).startswith("snapshot: firmware guest: its SHA-256 is ")


def test_another_version_is_refused() -> None:
    snapshot = snapshot_with()
    other = attrs.evolve(snapshot, identity={**snapshot.identity, "sevplug": "0.0.1"})
    with (
        machine_with(assemble(GUEST)) as (machine, _board),
        pytest.raises(SnapshotError, match=r"made by sevplug 0\.0\.1, this is "),
    ):
        machine.restore(other)


def test_other_devices_are_refused() -> None:
    snapshot = snapshot_with(WithDevice(Stateless()))
    with (
        machine_with(assemble(GUEST)) as (machine, _board),
        pytest.raises(SnapshotError, match=r"^snapshot: devices: made with "),
    ):
        machine.restore(snapshot)


def test_before_the_launch_and_after_the_end_none_is_made() -> None:
    with machine_with(assemble(GUEST)) as (machine, board):
        with pytest.raises(SnapshotError, match="was not launched"):
            machine.snapshot()
        machine.start_launch()
        begun = machine.snapshot()
        finish(machine, board)
        with pytest.raises(SnapshotError, match="has ended"):
            machine.snapshot()
        machine.restore(begun)
        assert finish(machine, board).written == [MARK, 0]
    with pytest.raises(SnapshotError, match="was closed"):
        machine.restore(begun)


def test_a_state_that_does_not_fit_ends_the_machine_until_another_is_put_back() -> None:
    with machine_with(assemble(GUEST)) as (machine, board):
        run_to(machine, board, MARK)
        snapshot = machine.snapshot()
        broken = attrs.evolve(snapshot, state={**snapshot.state, "devices": [{"written": 5}]})
        with pytest.raises(
            SnapshotError, match=r"^snapshot: the state of device test board does not fit \(TypeError\)$"
        ):
            machine.restore(broken)
        assert machine.run(1).result == "stopped"
        machine.restore(snapshot)
        assert finish(machine, board).written == [MARK, 0]


def test_the_hosts_clock_stands_still_between_a_snapshot_and_its_return() -> None:
    with machine_with(assemble(GUEST), clock="host") as (machine, board):
        run_to(machine, board, MARK)
        snapshot = machine.snapshot()
        now = machine.clock.now
        finish(machine, board)
        machine.restore(snapshot)
        machine.clock.catch_up()
        assert machine.clock.now == now
        assert machine.run(5).result == "shutdown"


def resident(machine: Machine) -> dict[str, int]:
    """KiB of the machine's RAM by /proc/self/smaps: private and dirty, and resident at all."""
    address = machine.memory.ranges[0].buffer
    start = host_address(address)
    found = {"Private_Dirty": 0, "Rss": 0}
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        words = line.split()
        if "-" in words[0] and not words[0].endswith(":"):
            first, _, last = words[0].partition("-")
            inside = int(first, 16) >= start and int(last, 16) <= start + len(address)
        elif inside and words[0].rstrip(":") in found:
            found[words[0].rstrip(":")] += int(words[1])
    return found


def host_address(buffer: memoryview) -> int:
    import ctypes

    return ctypes.addressof(ctypes.c_char.from_buffer(buffer))


def test_many_guests_of_one_snapshot_share_its_memory() -> None:
    # Fifteen megabytes of 0x11, of which each guest changes one page.
    source = assemble(f"""
        .byte 0x66; lgdt cs:[pointer - _start]; mov eax, 0x11; mov cr0, eax; .byte 0x66, 0xea; .long wide; .word 8
    gdt: .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff
    pointer: .word 23; .long gdt
        .code32
    wide: mov ax, 16; mov ds, ax; mov es, ax; cld
        mov edi, 0x100000; mov eax, 0x11111111; mov ecx, 0x3c0000; rep stosd
        mov al, {MARK}; out 0x80, al; jmp 1f
    1:  mov ecx, 0x3c00; mov esi, 0x100000; xor ebx, ebx; 2: add ebx, [esi]; add esi, 1024; loop 2b
        mov [0x200000], ebx; mov eax, ebx; out 0x80, eax; out 0xf4, al; jmp .
    """)  # fmt: skip
    with machine_with(source) as (machine, board):
        run_to(machine, board, MARK)
        snapshot = machine.snapshot()
    assert snapshot.image.size > 15 * MIB
    with machine_with(source) as (one, board), machine_with(source) as (two, second):
        for machine in (one, two):
            machine.restore(snapshot)
        assert finish(one, board) == finish(two, second)
        for machine in (one, two):
            pages = resident(machine)
            assert pages["Rss"] > 14 * 1024
            assert pages["Private_Dirty"] < 1024
