"""Machines with the SEV plug-ins around the embedded guest or an image that a test makes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import attrs
from assembler import assemble
from embedded_board import EmbeddedBoardPlugin
from machines import MIB, manager_with

from sevplug.boot import embedded
from sevplug.core.config import BootImages, Image, MachineConfig, ObjectSpec
from sevplug.core.hookspecs import hookimpl
from sevplug.core.launch import LaunchSecret
from sevplug.core.machine import Machine
from sevplug.owner.seal import seal_secrets
from sevplug.plugins import secret_injection
from sevplug.plugins.measurement import MeasurementPlugin
from sevplug.plugins.sev import SevPlugin
from sevplug.sevapi.context import SevContext
from sevplug.sevapi.guid_table import FOOTER, HASH_TABLE_AREA
from sevplug.sevapi.keys import TransportKeys
from sevplug.sevapi.measurement import LaunchMeasurement

TIK, TEK = bytes(range(0x10, 0x20)), bytes(range(0xA0, 0xB0))
KEYS = TransportKeys(tek=TEK, tik=TIK)
SECRET_AREA, SECRET_AREA_SIZE = 0x10000, 0xC00
HASH_AREA = 0x10C00


class Events:
    """Keeps every event."""

    name = "events"

    def __init__(self) -> None:
        self.seen: list[tuple[str, Mapping[str, Any]]] = []

    @hookimpl
    def notify(self, event: str, fields: Mapping[str, Any]) -> None:
        self.seen.append((event, fields))

    def of(self, event: str) -> list[Mapping[str, Any]]:
        return [fields for name, fields in self.seen if name == event]


@attrs.frozen
class SevGuest:
    """A machine that is built, its board, and what it told."""

    machine: Machine
    board: EmbeddedBoardPlugin
    events: Events

    @property
    def context(self) -> SevContext:
        assert isinstance(self.machine.launch.context, SevContext)
        return self.machine.launch.context

    @property
    def measurement(self) -> LaunchMeasurement:
        assert self.machine.launch.measurement is not None
        return LaunchMeasurement.from_blob(self.machine.launch.measurement.blob)

    def seal(self, secret: bytes = embedded.SECRET) -> LaunchSecret:
        """A packet with one secret that this guest can receive."""
        packet = seal_secrets({embedded.SECRET_GUID: secret}, self.context.keys, self.measurement)
        return LaunchSecret(packet.header, packet.payload)


def sev_object(name: str = "sev0", **properties: str) -> ObjectSpec:
    """An object with ``properties`` (underscores for hyphens) over a C-bit at 51."""
    given = {key.replace("_", "-"): value for key, value in properties.items()}
    return ObjectSpec("sev-emulated", name, {"cbitpos": "51", "reduced-phys-bits": "1", **given})


@contextlib.contextmanager
def sev_guest(
    *objects: ObjectSpec,
    firmware: bytes | None = None,
    plugins: tuple[object, ...] = (),
    without: tuple[str, ...] = (),
    boot: BootImages | None = None,
    **config: Any,
) -> Iterator[SevGuest]:
    """A machine with the SEV plug-ins except those ``without``; ``firmware`` in place of the embedded guest."""
    board, events = EmbeddedBoardPlugin(), Events()
    if boot is None:
        boot = embedded.load() if firmware is None else BootImages(firmware=Image(firmware, "guest.fd"))
    manager = manager_with(events, board, *plugins)
    for name, plugin in (
        ("sev", SevPlugin()), ("measurement", MeasurementPlugin()), ("secret-injection", secret_injection),
    ):  # fmt: skip
        if name not in without:
            manager.add(plugin, name)
    settings = {"boot": boot, "memory": 16 * MIB, "objects": objects, **config}
    with Machine(MachineConfig(**settings), manager) as machine:
        yield SevGuest(machine, board, events)


def firmware_with_hash_area(size: int = 0x400, base: int = HASH_AREA) -> bytes:
    """An image whose GUID table names an area for the kernel's hashes and no other."""
    area = base.to_bytes(4, "little") + size.to_bytes(4, "little")
    entry = area + (26).to_bytes(2, "little") + HASH_TABLE_AREA.bytes_le
    footer = (26 + 18).to_bytes(2, "little") + FOOTER.bytes_le
    image = bytearray(assemble("out 0xf4, al; hlt"))
    image[-32 - 44 : -32] = entry + footer
    return bytes(image)
