"""Reading the owner's secrets and sealing them for one guest."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from uuid import UUID

from sevplug.owner.errors import OwnerError
from sevplug.sevapi.errors import SevApiError
from sevplug.sevapi.files import read_at_most
from sevplug.sevapi.keys import TransportKeys
from sevplug.sevapi.measurement import LaunchMeasurement
from sevplug.sevapi.packet import IV_SIZE, MAX_PAYLOAD_SIZE, SecretPacket, seal_packet
from sevplug.sevapi.secret_table import HEADER_SIZE, build_secret_table, parse_guid

MAX_SECRET_SIZE = MAX_PAYLOAD_SIZE - 2 * HEADER_SIZE
"""The longest secret that fits a packet, when it is alone in its table: 16344 bytes."""


def parse_secret_spec(spec: str) -> tuple[UUID, bytes]:
    """The GUID and the content of the file that `spec`, `GUID=FILE`, names.

    GUID may be one of libvirt's names, such as `luks-key`. Raises OwnerError, one line, for a text of another
    form, an unknown GUID, and a file that is missing, empty or longer than a packet can carry.
    """
    name, equals, path = spec.partition("=")
    if not (name and equals and path):
        # The text is not repeated: it might be the secret itself.
        raise OwnerError("secret: expected GUID=FILE")
    try:
        guid = parse_guid(name)
    except SevApiError as error:
        raise OwnerError(f"secret: {error}") from error
    try:
        data = read_at_most(path, "secret", MAX_SECRET_SIZE)
    except SevApiError as error:
        raise OwnerError(str(error)) from error
    if not data:
        raise OwnerError(f"secret: {path}: the file is empty")
    if len(data) > MAX_SECRET_SIZE:
        raise OwnerError(f"secret: {path}: expected at most {MAX_SECRET_SIZE} bytes, found more")
    return guid, data


def read_secrets(specs: Iterable[str]) -> dict[UUID, bytes]:
    """The secrets that several `GUID=FILE` texts name, in their order.

    Raises OwnerError as `parse_secret_spec` does, and for two secrets of one GUID.
    """
    found: dict[UUID, bytes] = {}
    for spec in specs:
        guid, data = parse_secret_spec(spec)
        if guid in found:
            raise OwnerError(f"secret: two secrets have the GUID {guid}")
        found[guid] = data
    return found


def seal_secrets(
    secrets: Mapping[UUID, bytes],
    keys: TransportKeys,
    measurement: LaunchMeasurement,
    iv: bytes | None = None,
) -> SecretPacket:
    """A packet with a table of `secrets` that only the guest of `measurement` can receive.

    `measurement` should have been verified. `iv` is 16 random bytes unless given. Raises OwnerError when
    there is nothing to seal, or when the table does not fit a packet (16384 bytes).
    """
    if not secrets:
        raise OwnerError("secrets: expected at least one")
    try:
        table = build_secret_table(secrets)
        if len(table) > MAX_PAYLOAD_SIZE:
            raise OwnerError(
                f"secrets: their table has {len(table)} bytes, a packet carries at most {MAX_PAYLOAD_SIZE}"
            )
        return seal_packet(table, keys, measurement, os.urandom(IV_SIZE) if iv is None else iv)
    except SevApiError as error:
        raise OwnerError(f"secrets: {error}") from error
