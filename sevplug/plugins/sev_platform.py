"""The platform below a guest: one boot of its firmware, and LAUNCH_START as that firmware does it.

A machine has one where ``--platform`` names a folder that ``sevplug platform new`` made; without one there are no
certificates, and keys come from files.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import attrs

from sevplug.core.errors import ConfigError, LaunchRefused
from sevplug.plugins.sev_object import SevObject
from sevplug.sevapi.errors import FirmwareError, SevApiError
from sevplug.sevapi.keys import KEY_SIZE, TransportKeys

if TYPE_CHECKING:
    from sevplug.core.machine import Machine
    from sevplug.platform.firmware import Firmware

NAME = "sev-platform"


@attrs.frozen
class GuestPlatform:
    """``machine.private[NAME]``: the firmware, and what a guest of it sees of addresses."""

    firmware: Firmware
    c_bit: int
    reduced_bits: int


def platform_of(machine: Machine) -> GuestPlatform | None:
    """The machine's platform, or None."""
    found = machine.private.get(NAME)
    return found if isinstance(found, GuestPlatform) else None


def open_platform(folder: str, chosen: SevObject) -> GuestPlatform:
    """INIT of the platform in ``folder``; `ConfigError` where there is none that can be used."""
    from pathlib import Path

    from sevplug.platform.errors import PlatformError
    from sevplug.platform.firmware import Firmware  # only for those who have a platform
    from sevplug.platform.store import PlatformStore

    try:
        firmware = Firmware(PlatformStore(Path(folder)))
        firmware.init()
    except (PlatformError, SevApiError) as error:
        raise ConfigError(f"--platform: {error}") from None
    return GuestPlatform(firmware, chosen.c_bit, chosen.reduced_bits)


def launch_keys(platform: GuestPlatform | None, chosen: SevObject) -> TransportKeys:
    """LAUNCH_START: the keys that the owner's session holds, or those of the object.

    `LaunchRefused` with the firmware's status.
    """
    if platform is None:
        return chosen.keys if chosen.keys is not None else _own_keys()
    try:
        keys = platform.firmware.launch_start(chosen.policy, chosen.certificate, chosen.session)
    except FirmwareError as error:
        raise LaunchRefused(str(error), int(error.status)) from None
    return keys or chosen.keys or _own_keys()


def _own_keys() -> TransportKeys:
    """Without a session the firmware makes keys that nobody else knows: such a guest cannot be attested."""
    return TransportKeys(tek=os.urandom(KEY_SIZE), tik=os.urandom(KEY_SIZE))
