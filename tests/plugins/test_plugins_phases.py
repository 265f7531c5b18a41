"""Where a guest's life stands: from events, from landmarks on its ports, and from the CPU."""

from __future__ import annotations

from typing import Any

import pytest

from sevplug.boot import embedded
from sevplug.core.config import MachineConfig
from sevplug.core.hookspecs import hookimpl
from sevplug.core.machine import Machine
from sevplug.core.plugins import Selection, load_plugins
from sevplug.plugins import phases
from sevplug.plugins.phases import PHASES, PhasesPlugin, later_phase


class Listener:
    """Keeps the phases that are told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    @hookimpl
    def notify(self, event: str, fields: dict[str, Any]) -> None:
        if event == phases.PHASE:
            assert fields["text"] == PHASES[fields["phase"]]
            self.told.append(fields["phase"])


def machine_and_listener(**config: Any) -> tuple[Machine, Listener]:
    manager = load_plugins(Selection.parse(["no:qmp", "no:logging", "no:progress"]))
    listener = Listener()
    manager.add(listener, "listener")
    return Machine(MachineConfig(boot=embedded.load(), **config), manager), listener


def hear(machine: Machine, *pieces: bytes) -> None:
    serial: Any = machine.private["serial"]
    for piece in pieces:
        for byte in piece:
            serial.sent.send(byte)
        serial.flush()


def test_the_embedded_guest_is_measured_and_runs() -> None:
    machine, listener = machine_and_listener()
    with machine:
        machine.run(timeout=10)
    assert listener.told == ["measure", "firmware"]


def test_a_guest_that_waits_and_is_paused() -> None:
    machine, listener = machine_and_listener(paused=True)
    with machine:
        machine.start_launch()
        machine.resume()
        machine.pause()
        machine.resume()
    assert listener.told == ["wait", "measure", "wait", "firmware", "paused", "firmware"]


def test_a_boot_is_seen_by_its_landmarks() -> None:
    machine, listener = machine_and_listener()
    with machine:
        machine.start_launch()
        machine.resume()
        hear(machine, b'BdsDxe: starting Boot0001 "UEFI Misc Device"\r\n')
        hear(machine, b"EFI stub: Loaded initrd from LINUX_EFI_INITRD_MEDIA_GUID device path\r\n")
        hear(machine, b"\r\n[    0.000000] Linux ver", b"sion 6.12.0 (builder@debian)\r\n")
        hear(machine, b"EFI stub: again\r\n")
        hear(machine, b"[    0.314903] Run /init as init process\r\n")
        assert listener.told == ["measure", "firmware", "loader", "kernel-start", "kernel", "userspace"]
        listener.told.clear()
        machine.system_reset()
        hear(machine, b"[    0.000000] Linux version 6.12.0\r\n")
    assert listener.told == ["firmware", "kernel"]


@pytest.mark.parametrize(
    ("text", "phase"),
    [
        (b"SecCoreStartupWithStack(0xFFFCC000, 0x820000)", "firmware"),
        (b"Loading DXE CORE at 0x0000FE9E000 EntryPoint=0x0000FEB1F6B", "firmware-drivers"),
        (b"[Bds] Entry...", "boot-manager"),
        (b"   GNU GRUB  version 2.12", "loader"),
        (b"Decompressing Linux... Parsing ELF... done.", "kernel-start"),
        (b"this is no Linux version 6", "firmware"),
        (b"<5>Linux version 6.1\n[1] Run /sbin/init as init process", "userspace"),
    ],
)
def test_landmarks(text: bytes, phase: str) -> None:
    assert later_phase("firmware", text) == phase


def test_a_quiet_kernel_is_seen_by_its_addresses_and_its_userspace_by_cpl_3() -> None:
    machine, listener = machine_and_listener()
    with machine:
        plugin = machine.private[phases.NAME]
        assert isinstance(plugin, PhasesPlugin)
        machine.start_launch()
        plugin.look(machine)
        machine.resume()
        plugin.look(machine)
        assert listener.told == ["measure", "firmware"]
        machine.cpu.set("rip", 0xFFFF_FFFF_8100_0000)
        plugin.look(machine)
        plugin.look(machine)
        assert listener.told[2:] == ["kernel"]
        machine.engine.cpu.sync_mode(3)
        plugin.look(machine)
        plugin.look(machine)
        assert listener.told[3:] == ["userspace"]
