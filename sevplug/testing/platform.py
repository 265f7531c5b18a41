"""An emulated platform for tests: the same chip in each, and a folder that is the test's own."""

from __future__ import annotations

import functools
from pathlib import Path

import attrs

from sevplug.platform.identity import Identity, emulated_chain, make_chip, make_identity
from sevplug.platform.randomness import SeededRandom
from sevplug.platform.root import emulated_root
from sevplug.platform.store import PlatformRecord, PlatformStore
from sevplug.sevapi.certificates import SevCertificate
from sevplug.sevapi.chain import AmdChain, PlatformChain
from sevplug.sevapi.version import EMULATED_API

FULL_CHAIN = "full_chain.cert"


@functools.cache
def seeded_record(seed: bytes = b"sevplug.testing") -> PlatformRecord:
    """A platform that ``seed`` determines, with its keys; made once a process, since that takes half a second."""
    random = SeededRandom(seed)
    chip = make_chip(EMULATED_API, random)
    return PlatformRecord(EMULATED_API, chip, make_identity(chip, EMULATED_API, random), seeded=True)


@attrs.frozen
class Platform:
    """An emulated platform in a folder, as ``sevplug platform new`` makes it; its keys protect nothing.

    ``folder``: what ``--platform`` takes.  ``record``: chip, keys and certificates as they were made.
    """

    folder: Path
    record: PlatformRecord = attrs.field(repr=False)

    @property
    def identity(self) -> Identity:
        """The keys and certificates that its firmware keeps."""
        assert self.record.identity is not None
        return self.record.identity

    @property
    def pdh(self) -> SevCertificate:
        """The certificate that an owner makes a session for."""
        return self.identity.pdh

    @property
    def chain(self) -> PlatformChain:
        """PDH, PEK, OCA and CEK."""
        return self.identity.chain(self.record.chip.cek)

    @property
    def root(self) -> AmdChain:
        """ASK and ARK of all emulated platforms, in the place of AMD's."""
        return emulated_root()

    @property
    def full_chain(self) -> Path:
        """The file of PDH || PEK || OCA || CEK || ASK || ARK, as ``sevctl export --full`` writes it."""
        return self.folder / FULL_CHAIN


def new_platform(folder: Path) -> Platform:
    """The platform of all tests in ``folder``, which is made; `PlatformError` when there is one already."""
    record = seeded_record()
    PlatformStore(folder).create(record)
    platform = Platform(folder, record)
    platform.full_chain.write_bytes(emulated_chain(record.chip, platform.identity))
    return platform
