"""The guest that comes with sevplug: a self-test of SEV from inside, for a first run and for tests.

Its source is embedded.S beside this file; scripts/build-boot-images makes embedded.bin of it.
"""

from __future__ import annotations

from importlib import resources
from uuid import UUID

from sevplug.core.config import BootImages, Image

# A demonstration secret: under this GUID GRUB in an encrypted guest looks for a disk's passphrase.
SECRET_GUID = UUID("736869e5-84f0-4973-92ec-06879ce3da0b")
SECRET = b"a demonstration secret"


def load() -> BootImages:
    """The embedded guest in the place of a firmware."""
    data = resources.files(__package__).joinpath("embedded.bin").read_bytes()
    return BootImages(firmware=Image(data, "(the embedded guest)"))
