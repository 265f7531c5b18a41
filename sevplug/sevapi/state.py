"""The states of a guest and of the platform, and which launch command may be issued in which state."""

from __future__ import annotations

import enum
from collections.abc import Mapping

from sevplug.sevapi.errors import FirmwareError
from sevplug.sevapi.status import Status


class GuestState(enum.IntEnum):
    """Where a guest is in its life. Source: SEV API, 6.1.1, "GSTATE Finite State Machine"."""

    UNINIT = 0
    LAUNCH_UPDATE = 1
    LAUNCH_SECRET = 2
    RUNNING = 3
    SEND_UPDATE = 4
    RECEIVE_UPDATE = 5
    SENT = 6

    @property
    def qmp_name(self) -> str:
        """The name in QMP's `SevState` (QEMU `qapi/misc-i386.json`), whose list ends before `sent`."""
        return self.name.lower().replace("_", "-")


class PlatformState(enum.IntEnum):
    """What the platform is ready for. Source: SEV API, 5.1.2, "Platform State Machine"."""

    UNINIT = 0
    INIT = 1
    WORKING = 2


class Command(enum.IntEnum):
    """Firmware commands about a guest's launch. Source: SEV API, 4.3, "Command Identifiers"."""

    LAUNCH_START = 0x30
    LAUNCH_UPDATE_DATA = 0x31
    LAUNCH_UPDATE_VMSA = 0x32
    LAUNCH_MEASURE = 0x33
    LAUNCH_SECRET = 0x34
    LAUNCH_FINISH = 0x35
    ATTESTATION = 0x36


# For each command: the states it may be issued in, and the state each leads to.
_TRANSITIONS: Mapping[Command, Mapping[GuestState, GuestState]] = {
    Command.LAUNCH_START: {GuestState.UNINIT: GuestState.LAUNCH_UPDATE},
    Command.LAUNCH_UPDATE_DATA: {GuestState.LAUNCH_UPDATE: GuestState.LAUNCH_UPDATE},
    Command.LAUNCH_UPDATE_VMSA: {GuestState.LAUNCH_UPDATE: GuestState.LAUNCH_UPDATE},
    Command.LAUNCH_MEASURE: {GuestState.LAUNCH_UPDATE: GuestState.LAUNCH_SECRET},
    Command.LAUNCH_SECRET: {GuestState.LAUNCH_SECRET: GuestState.LAUNCH_SECRET},
    Command.LAUNCH_FINISH: {GuestState.LAUNCH_SECRET: GuestState.RUNNING},
    Command.ATTESTATION: {
        state: state
        for state in (GuestState.LAUNCH_SECRET, GuestState.RUNNING, GuestState.SEND_UPDATE, GuestState.SENT)
    },
}


def legal_states(command: Command) -> frozenset[GuestState]:
    """The states in which `command` may be issued.

    Source: SEV API, 6.1.1; the table of transitions in AMD's published firmware
    (AMD-ASPFW, `sev_guest.c`).
    """
    return frozenset(_TRANSITIONS[command])


def next_state(state: GuestState, command: Command) -> GuestState:
    """The guest's state after `command` succeeded in `state`; the same sources as `legal_states`.

    Raises `FirmwareError` with INVALID_GUEST_STATE when the command may not be issued in `state`.
    """
    successors = _TRANSITIONS[command]
    if state not in successors:
        wanted = " or ".join(legal.qmp_name for legal in sorted(successors))
        raise FirmwareError(
            Status.INVALID_GUEST_STATE,
            f"{command.name}: the guest is in state {state.qmp_name}, the command needs {wanted}",
        )
    return successors[state]
