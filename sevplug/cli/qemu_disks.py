"""Disks in QEMU's spelling: ``-drive if=virtio``, and ``-drive if=none`` with ``-device virtio-blk-pci``.

Source: QEMU's ``system/vl.c`` and ``blockdev.c`` (a drive of if=virtio becomes a device behind those of ``-device``).
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from sevplug.cli.options import key_values, parse_bool, take_only
from sevplug.core.errors import ConfigError

DEVICE = "virtio-blk-pci"
_DRIVE_FIELDS = ("if", "id", "format", "file", "readonly", "snapshot")
# What a SEV guest's device is given in QEMU, and what this one always is.
_FIXED = {"disable-legacy": True, "disable-modern": False, "iommu_platform": True}


@attrs.frozen
class QemuDisk:
    """One disk; ``kept``: the user asked for the guest's writes to stay in the file."""

    path: str
    read_only: bool
    kept: bool


@attrs.define
class QemuDisks:
    """The drives and devices met so far."""

    _plain: list[QemuDisk] = attrs.field(factory=list)
    _named: dict[str, QemuDisk] = attrs.field(factory=dict)
    _shown: dict[str, str] = attrs.field(factory=dict)
    _devices: dict[str, str] = attrs.field(factory=dict)

    def add_drive(self, option: str, value: str, fields: Mapping[str, str]) -> None:
        """``-drive`` with ``if`` virtio or none; `ConfigError` for what cannot be honoured."""
        take_only(option, value, fields, _DRIVE_FIELDS)
        if fields.get("format", "raw") != "raw":
            raise ConfigError(f"{option} {value}: format={fields['format']} is not supported, expected format=raw")
        if not fields.get("file"):
            raise ConfigError(f"{option} {value}: Parameter 'file' is missing")
        read_only = parse_bool(option, "readonly", fields.get("readonly", "off"))
        snapshot = parse_bool(option, "snapshot", fields.get("snapshot", "off"))
        disk = QemuDisk(fields["file"], read_only, not (read_only or snapshot))
        identity = fields.get("id")
        if identity is not None and identity in self._shown:
            raise ConfigError(f"{option} {value}: Duplicate ID '{identity}' for drive")
        if identity is not None:
            self._shown[identity] = f"{option} {value}"
        if fields["if"] == "virtio":
            self._plain.append(disk)
        elif identity is None:
            raise ConfigError(f"{option} {value}: Parameter 'id' is missing")
        else:
            self._named[identity] = disk

    def add_device(self, option: str, value: str) -> None:
        """``-device``; `ConfigError` for every device but the disk."""
        fields = key_values(option, value, "driver")
        if fields.get("driver") != DEVICE:
            raise ConfigError(f"{option} {value}: not supported; the only device that can be added is {DEVICE}")
        take_only(option, value, fields, ("driver", "id", "drive", *_FIXED))
        for name, wanted in _FIXED.items():
            if name in fields and parse_bool(option, name, fields[name]) != wanted:
                raise ConfigError(
                    f"{option} {value}: {name}={fields[name]} is not supported, expected {'on' if wanted else 'off'}"
                )
        drive = fields.get("drive")
        if not drive:
            raise ConfigError(f"{option} {value}: Parameter 'drive' is missing")
        if drive in self._devices:
            raise ConfigError(f"{option} {value}: Drive '{drive}' is already in use by another device")
        self._devices[drive] = f"{option} {value}"

    def disks(self) -> tuple[QemuDisk, ...]:
        """All of them in QEMU's order; `ConfigError` for a device without its drive, and the other way round."""
        for identity, shown in self._devices.items():
            if identity not in self._named:
                raise ConfigError(f"{shown}: Property '{DEVICE}.drive' can't find value '{identity}'")
        for identity in self._named:
            if identity not in self._devices:
                raise ConfigError(
                    f"{self._shown[identity]}: nothing refers to this drive, expected -device {DEVICE},drive={identity}"
                )
        return (*(self._named[identity] for identity in self._devices), *self._plain)
