"""``kernel-hashes`` where nobody said: on when the firmware has a place for the table, as users of ``run`` expect.

QEMU leaves it off, and so does ``sevplug qemu``; a guest that is attested without its kernel is seldom meant.
"""

from __future__ import annotations

import attrs

from sevplug.core.config import BootImages, MachineConfig, ObjectSpec
from sevplug.plugins import sev_object
from sevplug.plugins.firmware_images import guid_table
from sevplug.sevapi.errors import FormatError

_PROPERTY = "kernel-hashes"


def with_kernel_hashes(objects: tuple[ObjectSpec, ...], boot: BootImages) -> tuple[ObjectSpec, ...]:
    """``objects`` with the property written where a kernel is measured by default; with none, the default object."""
    if boot.kernel is None or boot.firmware is None:
        return objects
    try:
        if guid_table(boot.firmware).hash_table_area is None:
            return objects
    except FormatError:
        return objects  # the launch says what is wrong with it
    if not any(spec.type in sev_object.TYPES for spec in objects):
        return (*objects, attrs.evolve(sev_object.DEFAULT_SPEC, properties=_on(sev_object.DEFAULT_SPEC)))
    return tuple(
        attrs.evolve(spec, properties=_on(spec)) if spec.type in sev_object.TYPES else spec for spec in objects
    )


@attrs.frozen
class MeasuredImages:
    """What of a configuration's images is measured: firmware, and what it starts where the launch holds its hashes."""

    firmware: bytes = attrs.field(repr=False)
    kernel: bytes | None = attrs.field(default=None, repr=False)
    initrd: bytes | None = attrs.field(default=None, repr=False)
    cmdline: str | None = None


def measured_images(config: MachineConfig) -> MeasuredImages | None:
    """The images whose digest the owner of a guest of ``config`` expects; None without firmware."""
    boot = config.boot
    if boot.firmware is None:
        return None
    # The kernel is part of what is measured only where its hashes were asked for.
    if boot.kernel is None or not any(map(_hashes, config.objects)):
        return MeasuredImages(boot.firmware.data)
    initrd = None if boot.initrd is None else boot.initrd.data
    return MeasuredImages(boot.firmware.data, boot.kernel.data, initrd, boot.cmdline)


def _hashes(spec: ObjectSpec) -> bool:
    return sev_object.SWITCH.get(spec.properties.get(_PROPERTY, "off"), False)


def _on(spec: ObjectSpec) -> dict[str, str]:
    return {_PROPERTY: "on", **spec.properties}
