"""A platform in a folder: one file, replaced whole or not at all.

The file `emulated-platform.json` holds private keys and has mode 0600. It is written beside itself, forced to the disk
and renamed; a lock on the folder keeps two processes from changing it at once.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs

from sevplug.platform.errors import PlatformError
from sevplug.platform.identity import Chip, Identity
from sevplug.sevapi.certificates import SevCertificate
from sevplug.sevapi.elliptic import EcPrivateKey
from sevplug.sevapi.errors import SevApiError
from sevplug.sevapi.version import ApiVersion

FILE_NAME = "emulated-platform.json"
_NEW_NAME = f".{FILE_NAME}.new"
_FORMAT = "sevplug emulated platform"
_VERSION = 1
_WARNING = "An emulated SEV platform with its private keys. It protects nothing."
_MAX_SIZE = 1 << 20


@attrs.frozen
class PlatformRecord:
    """What is kept of a platform.

    `identity` is None before the first INIT and after a PLATFORM_RESET. `seeded` says that the keys came from a seed,
    so that others may have them.
    """

    api: ApiVersion
    chip: Chip
    identity: Identity | None = None
    seeded: bool = False


@attrs.frozen
class PlatformStore:
    """The folder of one platform."""

    folder: Path

    @property
    def path(self) -> Path:
        """The file in it."""
        return self.folder / FILE_NAME

    def create(self, record: PlatformRecord) -> None:
        """Make the folder (mode 0700) where there is none, and a platform in it.

        Raises PlatformError when there is a platform already, and when it can't be written.
        """
        try:
            self.folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise self._error(error) from None
        with self.locked():
            if self.path.exists():
                raise PlatformError(f"{self.folder}: there is a platform in it already")
            self.save(record)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from changing the platform; raises PlatformError when there is no such folder."""
        try:
            descriptor = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise self._error(error) from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def load(self) -> PlatformRecord:
        """The platform; raises PlatformError for a folder without one and for a file that is not whole."""
        try:
            with self.path.open("rb") as file:
                text = file.read(_MAX_SIZE + 1)
        except FileNotFoundError:
            raise PlatformError(f"{self.folder}: no platform in it, expected {FILE_NAME}") from None
        except OSError as error:
            raise self._error(error) from None
        try:
            return _record(json.loads(text))
        except SevApiError as error:
            raise PlatformError(f"{self.path}: {error}") from None
        except (ValueError, KeyError, TypeError, RecursionError):
            # The reason is not repeated: it may hold a piece of a key.
            raise PlatformError(f"{self.path}: not a platform of version {_VERSION}") from None

    def save(self, record: PlatformRecord) -> None:
        """Replace the file, whole or not at all; the folder should be locked. Raises PlatformError."""
        new = self.folder / _NEW_NAME
        text = json.dumps(_tree(record), indent=1) + "\n"
        try:
            # What a process that was killed left behind goes first: its mode may be another.
            new.unlink(missing_ok=True)
            descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                with os.fdopen(descriptor, "w", encoding="ascii") as file:
                    file.write(text)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(new, self.path)
            except BaseException:
                new.unlink(missing_ok=True)
                raise
            self._sync_folder()
        except OSError as error:
            raise self._error(error) from None

    def _sync_folder(self) -> None:
        descriptor = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _error(self, error: OSError) -> PlatformError:
        return PlatformError(f"{self.folder}: {error.strerror}")


def _tree(record: PlatformRecord) -> dict[str, Any]:
    chip, identity = record.chip, record.identity
    tree: dict[str, Any] = {
        "format": _FORMAT,
        "version": _VERSION,
        "warning": _WARNING,
        "seeded": record.seeded,
        "api": [record.api.major, record.api.minor, record.api.build],
        "chip": {"id": chip.chip_id.hex(), "cek_key": _key(chip.cek_key), "cek": _certificate(chip.cek)},
        "identity": None,
    }
    if identity is not None:
        tree["identity"] = {
            "oca_key": None if identity.oca_key is None else _key(identity.oca_key),
            "oca": _certificate(identity.oca),
            "pek_key": _key(identity.pek_key),
            "pek": _certificate(identity.pek),
            "pdh_key": _key(identity.pdh_key),
            "pdh": _certificate(identity.pdh),
        }
    return tree


def _record(tree: Any) -> PlatformRecord:
    """What `_tree` made; raises SevApiError, ValueError, KeyError or TypeError for anything else."""
    if tree["format"] != _FORMAT or tree["version"] != _VERSION:
        raise ValueError("format")
    chip, identity = tree["chip"], tree["identity"]
    major, minor, build = tree["api"]
    return PlatformRecord(
        api=ApiVersion(major, minor, build),
        chip=Chip(bytes.fromhex(chip["id"]), _read_key(chip["cek_key"]), _read_certificate(chip["cek"])),
        identity=None if identity is None else _read_identity(identity),
        seeded=bool(tree["seeded"]),
    )


def _read_identity(tree: Any) -> Identity:
    return Identity(
        oca_key=None if tree["oca_key"] is None else _read_key(tree["oca_key"]),
        oca=_read_certificate(tree["oca"]),
        pek_key=_read_key(tree["pek_key"]),
        pek=_read_certificate(tree["pek"]),
        pdh_key=_read_key(tree["pdh_key"]),
        pdh=_read_certificate(tree["pdh"]),
    )


def _key(key: EcPrivateKey) -> str:
    return f"{key.scalar:096x}"


def _read_key(text: str) -> EcPrivateKey:
    return EcPrivateKey(int.from_bytes(bytes.fromhex(text), "big"))


def _certificate(certificate: SevCertificate) -> str:
    return base64.b64encode(certificate.to_bytes()).decode("ascii")


def _read_certificate(text: str) -> SevCertificate:
    try:
        return SevCertificate.from_bytes(base64.b64decode(text, validate=True))
    except binascii.Error:
        raise ValueError("base64") from None
