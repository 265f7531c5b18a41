"""What the user asked for, as immutable values; nothing here opens a file or builds a machine."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import attrs

from sevplug.core.images import Image as Image

MIB = 1 << 20
EMPTY: Mapping[str, str] = MappingProxyType({})


@attrs.frozen
class ObjectSpec:
    """``-object TYPE,id=ID,KEY=VALUE,…`` before any plug-in has made sense of it."""

    type: str
    id: str
    properties: Mapping[str, str] = EMPTY


@attrs.frozen
class BootImages:
    """What the guest starts from.

    ``firmware`` is mapped so that it ends at 4 GiB; ``variables`` is a second flash bank right below it, writable and
    never measured.
    """

    firmware: Image | None = None
    variables: Image | None = None
    kernel: Image | None = None
    initrd: Image | None = None
    cmdline: str | None = None

    @property
    def direct(self) -> bool:
        """A kernel without firmware, to be entered directly."""
        return self.kernel is not None and self.firmware is None

    @property
    def placed(self) -> tuple[Image, ...]:
        """The images that lie in guest memory when the guest starts; the others it is handed while it runs."""
        images = (self.firmware, self.variables, *((self.kernel, self.initrd) if self.direct else ()))
        return tuple(image for image in images if image is not None)


@attrs.frozen
class MachineConfig:
    """Everything that decides how a machine is built.

    ``memory``: bytes of RAM.  ``cpu``: a model name of `sevplug.core.cpumodel`.  ``objects`` and ``machine_options``
    are for plug-ins: what none of them claims is refused.  ``options``: the values of the options that plug-ins
    added to the command line, by destination name.  ``seed``: of the guest's
    random numbers (RDRAND).  ``clock``: ``virtual`` or ``host``.
    """

    boot: BootImages = BootImages()
    memory: int = 256 * MIB
    cpu: str = "EPYC-Milan"
    objects: tuple[ObjectSpec, ...] = ()
    machine_options: Mapping[str, str] = EMPTY
    options: Mapping[str, object] = MappingProxyType({})
    serial: str = "null"
    paused: bool = False
    seed: int = 0
    reboot: bool = False
    clock: str = attrs.field(default="virtual", validator=attrs.validators.in_(("virtual", "host")))
