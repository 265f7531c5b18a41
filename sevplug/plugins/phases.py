"""The plug-in ``phases``: where a guest's life stands, as events for people who wait and for reports.

A phase is told of when it begins (event ``run.phase``).  Launch and pauses come from other events; what runs inside the
guest from landmarks on its serial port and its debug console, which firmware and kernels of many makers share, and,
where somebody looks, from the CPU itself: a quiet kernel's first instruction in the upper half of the address space,
and the first at CPL 3.  Phases go forward, until a reset.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Any, Final

import attrs

from sevplug.board.debugcon import DebugConsole
from sevplug.board.serial import Serial
from sevplug.core import events
from sevplug.core.hookspecs import hookimpl
from sevplug.core.machine import Machine
from sevplug.core.snapshot import SavedState

NAME: Final = "phases"
PHASE: Final = "run.phase"  # phase (a key of PHASES), text (the same in words)

BUILD, MEASURE, WAIT, PAUSED = "build", "measure", "wait", "paused"
FIRMWARE, FIRMWARE_DRIVERS, BOOT_MANAGER = "firmware", "firmware-drivers", "boot-manager"
LOADER, KERNEL_START, KERNEL, USERSPACE = "loader", "kernel-start", "kernel", "userspace"
PHASES: Final = {
    BUILD: "the machine is built",
    MEASURE: "the launch is measured",
    WAIT: "the machine waits to be started",
    PAUSED: "the guest is paused",
    FIRMWARE: "firmware runs",
    FIRMWARE_DRIVERS: "firmware starts its drivers",
    BOOT_MANAGER: "firmware looks for what to boot",
    LOADER: "a boot loader runs",
    KERNEL_START: "the kernel is unpacked",
    KERNEL: "the kernel boots",
    USERSPACE: "userspace runs",
}
# A server of the machine's says with such a name that it waits for its first client.
WAITING: Final = ".waiting"
# The order in which a guest goes through them.
_GUEST: Final = (FIRMWARE, FIRMWARE_DRIVERS, BOOT_MANAGER, LOADER, KERNEL_START, KERNEL, USERSPACE)
# As much as is kept of what came before a piece of output, so that a line in two pieces is found.
_TAIL = 128


@attrs.frozen
class Landmark:
    """Output that says that a phase has begun."""

    phase: str
    pattern: re.Pattern[bytes]


LANDMARKS: Final = (
    # edk2, DEBUG builds: MdeModulePkg/Core/DxeIplPeim/DxeLoad.c, MdeModulePkg/Universal/BdsDxe/BdsEntry.c
    Landmark(FIRMWARE_DRIVERS, re.compile(rb"Loading DXE CORE at 0x")),
    Landmark(BOOT_MANAGER, re.compile(rb"\[Bds\] ?Entry")),
    # MdeModulePkg/Universal/BdsDxe and UefiBootManagerLib say this in all builds.
    Landmark(LOADER, re.compile(rb"BdsDxe: starting Boot")),
    Landmark(LOADER, re.compile(rb"GNU GRUB |Welcome to GRUB|SYSLINUX \d")),
    # Linux: drivers/firmware/efi/libstub, arch/x86/boot/compressed/misc.c
    Landmark(KERNEL_START, re.compile(rb"EFI stub: |Decompressing Linux\.\.\.")),
    # Linux: init/version.c, init/main.c
    Landmark(KERNEL, re.compile(rb"(?:^|[\n\]] ?)Linux version \d")),
    Landmark(USERSPACE, re.compile(rb"Run /\S+ as init process")),
)


def later_phase(now: str, text: bytes) -> str:
    """The last phase that ``text`` has a landmark of, or ``now`` where none lies behind it."""
    found = now
    for landmark in LANDMARKS:
        if _GUEST.index(landmark.phase) > _GUEST.index(found) and landmark.pattern.search(text):
            found = landmark.phase
    return found


class PhasesPlugin:
    """The phase of one guest."""

    def __init__(self) -> None:
        self._guest = FIRMWARE
        self._tails: dict[str, bytes] = {}
        # What is happening now.
        self.phase = BUILD

    @hookimpl
    def machine_init(self, machine: Machine) -> None:
        """Where the guest begins."""
        machine.private[NAME] = self
        self._begin(machine)

    @hookimpl(trylast=True)
    def add_devices(self, machine: Machine) -> None:
        """Listen to the ports of the board, where it has them."""
        for name, kind in (("serial", Serial), ("debugcon", DebugConsole)):
            port = machine.private.get(name)
            if isinstance(port, kind):
                port.sent.listeners.append(functools.partial(self._heard, machine, name))

    @hookimpl(trylast=True)
    def notify(self, machine: Machine, event: str, fields: Mapping[str, Any]) -> None:
        """The phases that the host knows of; last, so that a log has the event before what follows from it."""
        match event:
            case events.LAUNCH_START:
                self._tell(machine, MEASURE)
            case events.MACHINE_BUILT | events.LAUNCH_MEASURE if machine.config.paused:
                self._tell(machine, WAIT)
            case _ if event.endswith(WAITING):
                self._tell(machine, WAIT)
            case events.RUN_RESUME:
                self._tell(machine, self._guest)
            case events.RUN_STOP:
                self._tell(machine, PAUSED)
            case events.GUEST_RESET if machine.config.reboot or not fields["guest"]:
                self._begin(machine)
                if self.phase in _GUEST:
                    self._tell(machine, self._guest)

    @hookimpl
    def snapshot_save(self) -> SavedState:
        """How far the guest has come."""
        return SavedState({"guest": self._guest, "tails": dict(self._tails)})

    @hookimpl
    def snapshot_load(self, state: Mapping[str, Any]) -> None:
        """It has come no further."""
        _GUEST.index(state["guest"])
        self._guest = state["guest"]
        self._tails = {str(port): bytes(tail) for port, tail in state["tails"].items()}

    def look(self, machine: Machine) -> None:
        """See by the CPU how far a guest has come that says nothing; on the machine's thread, between instructions."""
        if self.phase not in _GUEST or self._guest == USERSPACE:
            return
        if machine.cpu.cpl == 3:
            self._reach(machine, USERSPACE)
        elif machine.cpu.rip >> 63 and _GUEST.index(self._guest) < _GUEST.index(KERNEL):
            self._reach(machine, KERNEL)

    def _begin(self, machine: Machine) -> None:
        self._guest = KERNEL_START if machine.config.boot.direct else FIRMWARE
        self._tails.clear()

    def _heard(self, machine: Machine, port: str, piece: bytes) -> None:
        if self._guest == USERSPACE:
            return
        text = self._tails.get(port, b"") + piece
        self._tails[port] = text[-_TAIL:]
        self._reach(machine, later_phase(self._guest, text))

    def _reach(self, machine: Machine, phase: str) -> None:
        if phase != self._guest:
            self._guest = phase
            self._tell(machine, phase)

    def _tell(self, machine: Machine, phase: str) -> None:
        if phase != self.phase:
            self.phase = phase
            machine.notify(PHASE, phase=phase, text=PHASES[phase])
