"""The session with which an owner sends the transport keys to one platform (LAUNCH_START).

    nonce[16] || wrapped keys[32] || wrap IV[16] || wrap MAC[32] || policy MAC[32]

    Z = ECDH of the owner's key and the platform's PDH;  master = KDF(Z, "sev-master-secret", nonce)
    KEK = KDF(master, "sev-kek");  KIK = KDF(master, "sev-kik")
    wrapped keys = AES-128-CTR(KEK, wrap IV; TEK || TIK);  wrap MAC = HMAC-SHA256(KIK; wrapped keys)
    policy MAC = HMAC-SHA256(TIK; policy u32, little-endian)

Sources: SEV API, 6.2, LAUNCH_START; AMD's published firmware (AMD-ASPFW), `sev_channel.c`; virtee/sev,
`src/session/mod.rs`.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os

import attrs

from sevplug.sevapi.algorithms import Algorithm, Usage
from sevplug.sevapi.certificates import CERTIFICATE_SIZE, SevCertificate, check_purpose, make_certificate
from sevplug.sevapi.checks import bytes_of_length
from sevplug.sevapi.cipher import aes_ctr
from sevplug.sevapi.elliptic import EcPrivateKey, EcPublicKey, Random
from sevplug.sevapi.errors import FirmwareError, FormatError
from sevplug.sevapi.kdf import derive
from sevplug.sevapi.keys import KEY_SIZE, TransportKeys
from sevplug.sevapi.policy import Policy, check
from sevplug.sevapi.status import Status
from sevplug.sevapi.version import ApiVersion

SESSION_SIZE = 128
NONCE_SIZE = 16
IV_SIZE = 16
MAC_SIZE = 32

# sevctl writes certificates of this version: the owner's is no firmware's.
_NO_API = ApiVersion(0, 0, 0)


@attrs.frozen
class LaunchSession:
    """The fields of a session. Raises FormatError for one of another length. Nothing in it is secret."""

    nonce: bytes = attrs.field(validator=bytes_of_length(NONCE_SIZE), repr=bytes.hex)
    wrapped_keys: bytes = attrs.field(validator=bytes_of_length(2 * KEY_SIZE), repr=bytes.hex)
    wrap_iv: bytes = attrs.field(validator=bytes_of_length(IV_SIZE), repr=bytes.hex)
    wrap_mac: bytes = attrs.field(validator=bytes_of_length(MAC_SIZE), repr=bytes.hex)
    policy_mac: bytes = attrs.field(validator=bytes_of_length(MAC_SIZE), repr=bytes.hex)

    def to_bytes(self) -> bytes:
        """The 128 bytes of the session."""
        return self.nonce + self.wrapped_keys + self.wrap_iv + self.wrap_mac + self.policy_mac

    def to_base64(self) -> str:
        """The session as QEMU's `session-file` holds it."""
        return base64.b64encode(self.to_bytes()).decode("ascii")

    @classmethod
    def from_bytes(cls, data: bytes) -> LaunchSession:
        """The session in `data`; raises FormatError unless that is 128 bytes long."""
        if len(data) != SESSION_SIZE:
            raise FormatError(f"launch session: expected {SESSION_SIZE} bytes, found {len(data)}")
        return cls(data[:16], data[16:48], data[48:64], data[64:96], data[96:])


@attrs.frozen
class OwnerSession:
    """What an owner makes for one launch: a certificate and a session for the platform, and the keys to keep."""

    certificate: SevCertificate
    session: LaunchSession
    keys: TransportKeys = attrs.field(repr=False)


def wrap_keys(agreed: bytes, keys: TransportKeys, policy: Policy, nonce: bytes, iv: bytes) -> LaunchSession:
    """The session that carries `keys` to whoever else knows `agreed`, the secret that ECDH gave (48 bytes).

    `nonce` and `iv` have 16 bytes each and are used once. Raises FormatError for another length.
    """
    kek, kik = _wrapping_keys(agreed, nonce)
    wrapped = aes_ctr(kek, iv, keys.tek + keys.tik)
    return LaunchSession(
        nonce=nonce,
        wrapped_keys=wrapped,
        wrap_iv=iv,
        wrap_mac=hmac.digest(kik, wrapped, hashlib.sha256),
        policy_mac=hmac.digest(keys.tik, policy.to_bytes(), hashlib.sha256),
    )


def make_session(
    pdh: SevCertificate, policy: Policy, keys: TransportKeys | None = None, random: Random = os.urandom
) -> OwnerSession:
    """A session for the platform of `pdh`, whose chain the owner should have verified.

    `keys` are random unless given. Raises FirmwareError (INVALID_CERTIFICATE) when `pdh` is no certificate of a PDH.
    """
    check_purpose(pdh, Usage.PDH, Algorithm.ECDH_SHA256)
    if keys is None:
        keys = TransportKeys(tek=random(KEY_SIZE), tik=random(KEY_SIZE))
    own = EcPrivateKey.generate(random)
    session = wrap_keys(_agree(own, pdh), keys, policy, nonce=random(NONCE_SIZE), iv=random(IV_SIZE))
    certificate = make_certificate(Usage.PDH, Algorithm.ECDH_SHA256, own.public_key(), _NO_API)
    return OwnerSession(certificate, session, keys)


def open_session(
    pdh_key: EcPrivateKey, certificate: bytes, session: bytes, policy: Policy, api: ApiVersion
) -> TransportKeys:
    """The transport keys in a session, after every check that LAUNCH_START makes of one.

    `certificate` and `session` are the owner's, as they travel; `pdh_key` is the platform's private key. Raises
    FirmwareError with

    - INVALID_LENGTH when the session is not 128 bytes or the certificate not 0x824;
    - INVALID_CERTIFICATE when the certificate is not one of a PDH, or its key none; its signatures, its API version
      and its reserved bytes mean nothing here;
    - BAD_MEASUREMENT when the wrapped keys or the policy are not what was sent, or were sent to another platform;
    - POLICY_FAILURE as `policy.check` says.

    Source: `sev_mcmd_launch_start` (AMD-ASPFW, `sev_mcmd.c`), for the statuses and the order of the checks.
    """
    if len(session) != SESSION_SIZE:
        raise _refused(Status.INVALID_LENGTH, f"session: expected {SESSION_SIZE} bytes, found {len(session)}")
    if len(certificate) != CERTIFICATE_SIZE:
        raise _refused(
            Status.INVALID_LENGTH, f"owner's certificate: expected {CERTIFICATE_SIZE} bytes, found {len(certificate)}"
        )
    sent, owner = LaunchSession.from_bytes(session), SevCertificate.from_bytes(certificate)
    try:
        check_purpose(owner, Usage.PDH, Algorithm.ECDH_SHA256)
    except FirmwareError as error:
        raise _refused(error.status, f"owner's {error.detail}") from None
    kek, kik = _wrapping_keys(_agree(pdh_key, owner), sent.nonce)
    if not hmac.compare_digest(hmac.digest(kik, sent.wrapped_keys, hashlib.sha256), sent.wrap_mac):
        raise _refused(Status.BAD_MEASUREMENT, "session: the wrapped keys' MAC is wrong; for another PDH, or changed")
    unwrapped = aes_ctr(kek, sent.wrap_iv, sent.wrapped_keys)
    keys = TransportKeys(tek=unwrapped[:KEY_SIZE], tik=unwrapped[KEY_SIZE:])
    if not hmac.compare_digest(hmac.digest(keys.tik, policy.to_bytes(), hashlib.sha256), sent.policy_mac):
        raise _refused(Status.BAD_MEASUREMENT, f"session: the policy's MAC is not that of policy {policy}")
    if (status := check(policy, api)) != Status.SUCCESS:
        raise _refused(status, f"policy {policy} cannot be granted by API {api}")
    return keys


def _agree(key: EcPrivateKey, certificate: SevCertificate) -> bytes:
    other = certificate.public_key()
    assert isinstance(other, EcPublicKey)  # the certificate's algorithm was checked
    return key.shared_secret(other)


def _wrapping_keys(agreed: bytes, nonce: bytes) -> tuple[bytes, bytes]:
    """KEK and KIK, 16 bytes each."""
    master = derive(agreed, "sev-master-secret", nonce)
    return derive(master, "sev-kek"), derive(master, "sev-kik")


def _refused(status: Status, detail: str) -> FirmwareError:
    return FirmwareError(status, f"LAUNCH_START: {detail}")
