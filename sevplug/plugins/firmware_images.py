"""What a firmware image says about where launch data goes, parsed once an image; and how much memory it needs."""

from __future__ import annotations

from functools import lru_cache

from sevplug.core.config import MIB, Image, MachineConfig
from sevplug.core.errors import ConfigError
from sevplug.sevapi.guid_table import GuidTable, parse_guid_table

# A firmware volume has this at its offset 40 (UEFI PI specification, volume 3, EFI_FIRMWARE_VOLUME_HEADER).
_VOLUME_SIGNATURE, _SIGNATURE_AT = b"_FVH", 40
# OVMF unpacks itself from 9 MiB on, up to 24 MiB in builds of 4 MiB (edk2, OvmfPkg/OvmfPkgX64.fdf, MEMFD), and has its
# memory behind that.  Where memory ends before, it unpacks into nothing, for ever.
_OVMF_LEAST = 32 * MIB
# Builds differ in what they need beyond that; with this much, all of them start.
_SMALL = 64 * MIB


@lru_cache(maxsize=4)
def guid_table(image: Image) -> GuidTable:
    """The image's GUID table, empty when it has none; `sevplug.sevapi.errors.FormatError` when it lies."""
    return parse_guid_table(image.data)


def check_memory(config: MachineConfig) -> None:
    """`ConfigError` when ``config`` has less memory than UEFI firmware, which is OVMF here, can say a word in."""
    firmware = config.boot.firmware
    if firmware is None or config.memory >= _OVMF_LEAST:
        return
    if firmware.data.startswith(_VOLUME_SIGNATURE, _SIGNATURE_AT):
        raise ConfigError(
            f"memory (-m): {config.memory} bytes, expected at least {_OVMF_LEAST // MIB}M for OVMF "
            f"(firmware {firmware.path})"
        )


def memory_hint(config: MachineConfig) -> str:
    """What to add to a bad end of firmware that had little memory; empty where it had enough."""
    if config.boot.firmware is None or config.memory >= _SMALL:
        return ""
    return f" ({config.memory} bytes of memory may be too little for firmware {config.boot.firmware.path})"
