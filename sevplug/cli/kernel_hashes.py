"""``kernel-hashes`` where nobody said: on in ``run`` when the firmware has a place for the table, as its users expect.

QEMU leaves it off, and so does ``sevplug qemu``; a guest that is attested without its kernel is seldom meant.
"""

from __future__ import annotations

import attrs

from sevplug.core.config import BootImages, ObjectSpec
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


def _on(spec: ObjectSpec) -> dict[str, str]:
    return {_PROPERTY: "on", **spec.properties}
