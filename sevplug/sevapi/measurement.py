"""The launch measurement: the firmware's word, under the owner's key, on what was launched and how."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac

import attrs

from sevplug.sevapi.checks import bytes_of_length
from sevplug.sevapi.digest import DIGEST_SIZE
from sevplug.sevapi.errors import FormatError
from sevplug.sevapi.keys import KEY_SIZE
from sevplug.sevapi.policy import Policy
from sevplug.sevapi.version import ApiVersion

MAC_SIZE = 32
MNONCE_SIZE = 16
BLOB_SIZE = MAC_SIZE + MNONCE_SIZE
_CONTEXT = b"\x04"


@attrs.frozen
class LaunchMeasurement:
    """What LAUNCH_MEASURE returns: a MAC of 32 bytes and the firmware's nonce of 16.

    Source: SEV API, 6.5, LAUNCH_MEASURE. Raises FormatError for parts of another length.
    """

    mac: bytes = attrs.field(validator=bytes_of_length(MAC_SIZE), repr=bytes.hex)
    mnonce: bytes = attrs.field(validator=bytes_of_length(MNONCE_SIZE), repr=bytes.hex)

    @property
    def blob(self) -> bytes:
        """The 48 bytes `mac || mnonce` that the firmware writes."""
        return self.mac + self.mnonce

    def to_base64(self) -> str:
        """The blob as QMP's `query-sev-launch-measure` gives it."""
        return base64.b64encode(self.blob).decode("ascii")

    @classmethod
    def from_blob(cls, blob: bytes) -> LaunchMeasurement:
        """The measurement in a 48-byte blob; raises FormatError for another length."""
        if len(blob) != BLOB_SIZE:
            raise FormatError(f"launch measurement: expected {BLOB_SIZE} bytes, found {len(blob)}")
        return cls(mac=blob[:MAC_SIZE], mnonce=blob[MAC_SIZE:])

    @classmethod
    def from_base64(cls, text: str) -> LaunchMeasurement:
        """The measurement in a base64 text of a blob; raises FormatError for anything else."""
        try:
            blob = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError) as error:
            raise FormatError(f"launch measurement: expected {BLOB_SIZE} bytes in base64") from error
        return cls.from_blob(blob)


def measure(tik: bytes, api: ApiVersion, policy: Policy, digest: bytes, mnonce: bytes) -> LaunchMeasurement:
    """The measurement of a launch: HMAC-SHA256(TIK; 04 || api || policy || digest || mnonce).

    `tik` 16 bytes, `digest` the launch digest (32 bytes), `mnonce` 16 bytes; the policy enters little-endian.
    Raises FormatError for a wrong length. Source: SEV API, 6.5, LAUNCH_MEASURE.
    """
    _expect("tik", tik, KEY_SIZE)
    _expect("launch digest", digest, DIGEST_SIZE)
    _expect("mnonce", mnonce, MNONCE_SIZE)
    message = _CONTEXT + api.to_bytes() + policy.to_bytes() + digest + mnonce
    return LaunchMeasurement(mac=hmac.digest(tik, message, hashlib.sha256), mnonce=mnonce)


def verify(measurement: LaunchMeasurement, tik: bytes, api: ApiVersion, policy: Policy, digest: bytes) -> bool:
    """Whether `measurement` is the one that `measure` gives for the other arguments and its own nonce.

    The comparison takes the same time wherever the difference lies. Raises FormatError for a wrong length.
    """
    expected = measure(tik, api, policy, digest, measurement.mnonce)
    return hmac.compare_digest(expected.mac, measurement.mac)


def _expect(name: str, value: bytes, size: int) -> None:
    if len(value) != size:
        raise FormatError(f"{name}: expected {size} bytes, found {len(value)}")
