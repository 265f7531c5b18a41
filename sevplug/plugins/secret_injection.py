"""The plug-in ``secret-injection``: LAUNCH_SECRET, from a sealed packet to plaintext in guest memory.

The packet is checked whole before a byte is written.  Without an address it goes where the firmware's GUID table
says, as QEMU's sev_inject_launch_secret does.
"""

from __future__ import annotations

from sevplug.core.errors import LaunchRefused
from sevplug.core.hookspecs import hookimpl
from sevplug.core.launch import Launch, LaunchSecret
from sevplug.core.machine import Machine
from sevplug.plugins.firmware_images import guid_table
from sevplug.sevapi.context import SevContext
from sevplug.sevapi.errors import FirmwareError, FormatError
from sevplug.sevapi.measurement import LaunchMeasurement
from sevplug.sevapi.packet import SecretPacket, check_guest_address, open_packet
from sevplug.sevapi.state import Command, GuestState, next_state
from sevplug.sevapi.status import Status

NO_AREA = "SEV: no secret area found in OVMF, gpa must be specified."


@hookimpl
def launch_secret(machine: Machine, launch: Launch, packet: LaunchSecret) -> int | None:
    """Check state, place and packet in the firmware's order, then write the plaintext."""
    context = launch.context
    if not isinstance(context, SevContext):
        return None
    try:
        next_state(_state(launch), Command.LAUNCH_SECRET)
        if launch.measurement is None:
            raise FirmwareError(Status.INVALID_GUEST_STATE, "LAUNCH_SECRET: the guest was not measured")
        gpa = _place(machine, packet)
        check_guest_address(gpa)
        measurement = LaunchMeasurement.from_blob(launch.measurement.blob)
        plaintext = open_packet(SecretPacket(packet.header, packet.payload), context.keys, measurement)
    except FirmwareError as error:
        raise LaunchRefused(str(error), int(error.status)) from None
    machine.memory.write(gpa, plaintext, private=True)
    return gpa


def _state(launch: Launch) -> GuestState:
    return next(state for state in GuestState if state.qmp_name == launch.state.value)


def _place(machine: Machine, packet: LaunchSecret) -> int:
    """The guest-physical address for the payload, checked to be RAM and, in the firmware's area, to fit."""
    size = len(packet.payload)
    if packet.gpa is not None:
        gpa = packet.gpa
    else:
        firmware = machine.config.boot.firmware
        try:
            area = guid_table(firmware).secret_area if firmware is not None else None
        except FormatError as error:
            raise LaunchRefused(f"SEV: the firmware's GUID table is broken: {error}") from None
        if area is None:
            raise LaunchRefused(NO_AREA)
        if size > area.size:
            raise LaunchRefused(f"SEV: the secret has {size} bytes, the firmware's area at {area.base:#x} {area.size}")
        gpa = area.base
    if not machine.memory.holds(gpa, size):
        raise FirmwareError(Status.INVALID_ADDRESS, f"gpa {gpa:#x}, {size} bytes: expected a place inside guest memory")
    return gpa
