"""What the user asked for, as immutable values; nothing here opens a file or builds a machine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import attrs

from sevplug.core.errors import ConfigError

MIB = 1 << 20
EMPTY: Mapping[str, str] = MappingProxyType({})


@attrs.frozen
class Image:
    """The bytes of a file that the guest starts from; ``path`` is for messages only."""

    data: bytes = attrs.field(repr=lambda data: f"<{len(data)} bytes>")
    path: str

    @classmethod
    def load(cls, path: str | Path, what: str, *, limit: int | None = None) -> Image:
        """Read ``path`` whole.

        ``what`` names the role in messages ("firmware").  `ConfigError` when the file is missing, unreadable, empty
        or larger than ``limit`` bytes.
        """
        try:
            size = Path(path).stat().st_size
            if limit is not None and size > limit:
                raise ConfigError(f"{what} {path}: {size} bytes, expected at most {limit}")
            with Path(path).open("rb") as file:
                # A device can be endless and say that it has no size.
                data = file.read(-1 if limit is None else limit + 1)
        except OSError as error:
            raise ConfigError(f"{what} {path}: {error.strerror or error}") from None
        except ValueError:
            raise ConfigError(f"{what} {str(path)!r}: not a file name") from None
        if limit is not None and len(data) > limit:
            raise ConfigError(f"{what} {path}: more than {limit} bytes, expected at most {limit}")
        if not data:
            raise ConfigError(f"{what} {path}: the file is empty")
        return cls(data, str(path))


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
