"""The guest that comes with sevplug, as tests use it."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import attrs

from sevplug.boot import embedded
from sevplug.core.config import BootImages

FILE_NAME = "embedded.fd"


@attrs.frozen
class EmbeddedGuest:
    """A self-test of SEV from inside, 4 KiB in the place of firmware, that ends in milliseconds.

    It prints what it sees of SEV and each secret that was injected, and switches itself off.

    ``path``: the image as a file, for programs that compute its launch digest.  ``boot``: the same for a
    `MachineConfig`.  ``secret_guid``: a GUID for a secret; it takes any.
    """

    path: Path
    boot: BootImages = attrs.field(repr=False)
    secret_guid: UUID = embedded.SECRET_GUID

    @property
    def data(self) -> bytes:
        """The bytes of the image."""
        assert self.boot.firmware is not None
        return self.boot.firmware.data


def embedded_guest(folder: Path) -> EmbeddedGuest:
    """The guest, with its file in ``folder``."""
    guest = EmbeddedGuest(folder / FILE_NAME, embedded.load())
    guest.path.write_bytes(guest.data)
    return guest
