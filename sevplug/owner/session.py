"""The owner's session for one platform, in the four files that `sevctl session` writes."""

from __future__ import annotations

import os
from base64 import b64encode
from collections.abc import Mapping

import attrs

from sevplug.owner.errors import OwnerError
from sevplug.sevapi.algorithms import Usage
from sevplug.sevapi.certificate_files import split_certificates
from sevplug.sevapi.certificates import SevCertificate
from sevplug.sevapi.elliptic import Random
from sevplug.sevapi.errors import SevApiError
from sevplug.sevapi.keys import TransportKeys
from sevplug.sevapi.policy import Policy
from sevplug.sevapi.session import OwnerSession, make_session


@attrs.frozen
class SessionFile:
    """A file's content, and whether it is the owner's secret."""

    data: bytes = attrs.field(repr=False)
    secret: bool


def read_pdh(data: bytes) -> SevCertificate:
    """The PDH's certificate in a file, raw or in base64, alone or with the rest of its chain.

    Raises OwnerError when there is none.
    """
    try:
        found = [certificate for certificate in split_certificates(data) if certificate.usage == Usage.PDH]
    except SevApiError as error:
        raise OwnerError(f"PDH: {error}") from error
    if len(found) != 1 or not isinstance(found[0], SevCertificate):
        raise OwnerError(f"PDH: expected one certificate of a PDH, found {len(found)}")
    return found[0]


def make_owner_session(
    pdh: SevCertificate, policy: Policy, keys: TransportKeys | None = None, random: Random = os.urandom
) -> OwnerSession:
    """A session for the platform of `pdh`, with `keys` or new ones; raises OwnerError for a certificate of no PDH."""
    try:
        return make_session(pdh, policy, keys, random)
    except SevApiError as error:
        raise OwnerError(f"PDH: {error}") from error


def session_files(session: OwnerSession, name: str = "vm") -> Mapping[str, SessionFile]:
    """The files of `sevctl session --name NAME`: TIK and TEK, which the owner keeps, and what the host gets.

    `NAME_godh.b64` and `NAME_session.b64` are what QEMU's `dh-cert-file` and `session-file` take. As from sevctl, no
    line end follows the base64 text.
    """
    return {
        f"{name}_tik.bin": SessionFile(session.keys.tik, secret=True),
        f"{name}_tek.bin": SessionFile(session.keys.tek, secret=True),
        f"{name}_godh.b64": SessionFile(b64encode(session.certificate.to_bytes()), secret=False),
        f"{name}_session.b64": SessionFile(session.session.to_base64().encode("ascii"), secret=False),
    }
