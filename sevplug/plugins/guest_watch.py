"""The plug-in ``guest-watch``: reads the guest's serial port for a kernel panic, and ends the run with its words.

A Linux kernel that panicked waits for ever, or restarts after some seconds (its option ``panic=``).  Both are an end,
but neither says what happened.  The lines are those of Linux' kernel/panic.c.

Firmware that came to nothing with little memory gets a hint at that.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping
from typing import Any

import attrs

from sevplug.board.serial import Serial
from sevplug.core import events
from sevplug.core.hookspecs import hookimpl
from sevplug.core.machine import Machine
from sevplug.core.result import FAULT, HALTED, HANG, PANIC, RESET, TIMEOUT, End
from sevplug.core.snapshot import SavedState
from sevplug.plugins.firmware_images import memory_hint

_PANIC = re.compile(rb"Kernel panic - not syncing: ([^\r\n]*?)(?: \]---)?[\r\n]")
# The last thing that is said, by a kernel that will not restart.
_LAST = b"end Kernel panic - not syncing"
# As much as is kept of what came before a piece of output, so that a line in two pieces is found.
_TAIL = 512
# Ends that a panic explains.
_EXPLAINED = frozenset({FAULT, HALTED, HANG, RESET, TIMEOUT})
# Ends of firmware that had too little memory.
_OF_FIRMWARE = frozenset({FAULT, HALTED, HANG, TIMEOUT})


class GuestWatchPlugin:
    """One guest's panic, if there is one."""

    def __init__(self) -> None:
        self._tail = b""
        self._panic: str | None = None
        self._hint = ""

    @hookimpl(trylast=True)
    def add_devices(self, machine: Machine) -> None:
        """Listen to the serial port, where the board has one."""
        self._hint = memory_hint(machine.config)
        serial = machine.private.get("serial")
        if isinstance(serial, Serial):
            serial.on_output.append(lambda piece: self._heard(machine, piece))

    @hookimpl
    def notify(self, machine: Machine, event: str, fields: Mapping[str, Any]) -> None:
        """A guest that starts over has nothing to do with the panic of the one before."""
        if event == events.GUEST_RESET and (machine.config.reboot or not fields["guest"]):
            self._tail, self._panic = b"", None

    @hookimpl
    def guest_exit(self, end: End) -> End | None:
        """The panic is why, whatever it led to."""
        if self._panic is not None and end.result in _EXPLAINED:
            return End(PANIC, f"Kernel panic - not syncing: {self._panic}")
        return None

    @hookimpl(specname="guest_exit", wrapper=True)
    def firmware_exit(self, end: End) -> Generator[None, End | None, End | None]:
        """Whatever a bad end of firmware is called, too little memory may be why."""
        named = yield
        final = named or end
        if final.result not in _OF_FIRMWARE:
            return named
        return attrs.evolve(final, detail=final.detail + self._hint)

    @hookimpl
    def snapshot_save(self) -> SavedState:
        """What was heard so far."""
        return SavedState({"tail": self._tail, "panic": self._panic})

    @hookimpl
    def snapshot_load(self, state: Mapping[str, Any]) -> None:
        """Nothing was heard since."""
        self._tail, self._panic = bytes(state["tail"]), state["panic"]

    def _heard(self, machine: Machine, piece: bytes) -> None:
        text = self._tail + piece
        self._tail = text[-_TAIL:]
        if b"anic" not in text:
            return
        found = _PANIC.search(text)
        if found and self._panic is None:
            self._panic = found[1].decode(errors="replace")
        if self._panic is not None and _LAST in text:
            machine.end(PANIC, f"Kernel panic - not syncing: {self._panic}")
