"""The packet in which an owner sends secrets: encrypted, and bound to one launch measurement.

    header, 52 bytes: flags u32 || IV[16] || MAC[32]
    payload: AES-128-CTR(TEK, IV) of the plaintext
    MAC = HMAC-SHA256(TIK; 01 || flags || IV || guest length u32 || payload length u32 || payload || mac)

`mac` is that of the launch measurement, 32 bytes. Integers are little-endian; the IV is the first value of a 128-bit
big-endian counter. Source: SEV API, 6.6, LAUNCH_SECRET.
"""

from __future__ import annotations

import base64
import hashlib
import hmac

import attrs

from sevplug.sevapi.checks import bytes_of_length, unsigned
from sevplug.sevapi.cipher import aes_ctr
from sevplug.sevapi.errors import FirmwareError, FormatError
from sevplug.sevapi.keys import TransportKeys
from sevplug.sevapi.measurement import MAC_SIZE, LaunchMeasurement
from sevplug.sevapi.status import Status

HEADER_SIZE = 52
IV_SIZE = 16
BLOCK_SIZE = 16
MAX_PAYLOAD_SIZE = 16384
FLAG_COMPRESSED = 1
_CONTEXT = b"\x01"


@attrs.frozen
class PacketHeader:
    """The fields of a packet's header. Raises FormatError for a field that does not fit its place."""

    flags: int = attrs.field(validator=unsigned(32))
    iv: bytes = attrs.field(validator=bytes_of_length(IV_SIZE), repr=bytes.hex)
    mac: bytes = attrs.field(validator=bytes_of_length(MAC_SIZE), repr=bytes.hex)

    def to_bytes(self) -> bytes:
        """The 52 bytes of the header."""
        return self.flags.to_bytes(4, "little") + self.iv + self.mac

    @classmethod
    def from_bytes(cls, data: bytes) -> PacketHeader:
        """The header in `data`; raises FormatError unless that is 52 bytes long."""
        if len(data) != HEADER_SIZE:
            raise FormatError(f"packet header: expected {HEADER_SIZE} bytes, found {len(data)}")
        return cls(flags=int.from_bytes(data[:4], "little"), iv=data[4:20], mac=data[20:])


@attrs.frozen
class SecretPacket:
    """A header and a payload as they travel, of any content: `open_packet` judges them."""

    header: bytes = attrs.field(validator=attrs.validators.instance_of(bytes), repr=False)
    payload: bytes = attrs.field(validator=attrs.validators.instance_of(bytes), repr=False)

    @property
    def header_base64(self) -> str:
        """The header as QMP's `sev-inject-launch-secret` takes it (`packet-header`)."""
        return base64.b64encode(self.header).decode("ascii")

    @property
    def payload_base64(self) -> str:
        """The payload as QMP's `sev-inject-launch-secret` takes it (`secret`)."""
        return base64.b64encode(self.payload).decode("ascii")


def seal_packet(plaintext: bytes, keys: TransportKeys, measurement: LaunchMeasurement, iv: bytes) -> SecretPacket:
    """A packet that carries `plaintext` to the guest that `measurement` is about.

    `iv` (16 bytes) must not be used twice with the same keys. Raises FormatError when `iv` has another
    length, or when the plaintext is not a multiple of 16 bytes from 16 to 16384.
    """
    if problem := _length_problem(len(plaintext)):
        raise FormatError(f"packet plaintext: {problem}")
    unsealed = PacketHeader(flags=0, iv=iv, mac=bytes(MAC_SIZE))
    payload = aes_ctr(keys.tek, iv, plaintext)
    mac = _mac(unsealed, len(plaintext), payload, keys, measurement)
    return SecretPacket(header=attrs.evolve(unsealed, mac=mac).to_bytes(), payload=payload)


def open_packet(
    packet: SecretPacket,
    keys: TransportKeys,
    measurement: LaunchMeasurement,
    guest_length: int | None = None,
) -> bytes:
    """The plaintext of `packet`, after every check that LAUNCH_SECRET makes of a packet.

    `guest_length` is the length in bytes of the guest memory that is to be written, by default the payload's.
    Raises FirmwareError with

    - INVALID_LENGTH when the header is not 52 bytes, the payload not a multiple of 16 bytes from 16 to 16384,
      or `guest_length` not the payload's length;
    - BAD_MEASUREMENT when the MAC is not right for these keys and this measurement;
    - UNSUPPORTED for a compressed payload, which AMD's firmware does not expand either;
    - INVALID_PARAM for reserved flags. AMD's firmware lets them pass, but they can only come from an owner's
      mistake.

    Source: SEV API, 6.6, LAUNCH_SECRET; `sev_mcmd_launch_secret` in AMD's published firmware (AMD-ASPFW,
    `sev_mcmd.c`), for the statuses and the order of the MAC check. Its buffer holds a little more than 16 KiB.
    """
    length = len(packet.payload)
    guest_length = length if guest_length is None else guest_length
    if len(packet.header) != HEADER_SIZE:
        raise _refused(
            Status.INVALID_LENGTH, f"packet header: expected {HEADER_SIZE} bytes, found {len(packet.header)}"
        )
    if problem := _length_problem(length):
        raise _refused(Status.INVALID_LENGTH, f"packet payload: {problem}")
    if guest_length != length:
        raise _refused(
            Status.INVALID_LENGTH,
            f"guest memory: expected the payload's {length} bytes, found {guest_length}",
        )
    header = PacketHeader.from_bytes(packet.header)
    if not hmac.compare_digest(_mac(header, length, packet.payload, keys, measurement), header.mac):
        raise _refused(Status.BAD_MEASUREMENT, "packet MAC: not right for this packet, these keys and this measurement")
    if header.flags & FLAG_COMPRESSED:
        raise _refused(Status.UNSUPPORTED, "packet flags: compressed payloads are not supported")
    if header.flags:
        raise _refused(Status.INVALID_PARAM, f"packet flags: reserved bits are set in {header.flags:#x}")
    return aes_ctr(keys.tek, header.iv, packet.payload)


def check_guest_address(gpa: int) -> None:
    """Raises FirmwareError with INVALID_ADDRESS unless `gpa`, where a secret is to go, is a multiple of 16.

    Source: `sev_mcmd_launch_secret` in AMD's published firmware (AMD-ASPFW, `sev_mcmd.c`).
    """
    if gpa % BLOCK_SIZE:
        raise _refused(Status.INVALID_ADDRESS, f"guest address {gpa:#x}: expected a multiple of {BLOCK_SIZE}")


def _refused(status: Status, detail: str) -> FirmwareError:
    return FirmwareError(status, f"LAUNCH_SECRET: {detail}")


def _length_problem(length: int) -> str | None:
    if BLOCK_SIZE <= length <= MAX_PAYLOAD_SIZE and length % BLOCK_SIZE == 0:
        return None
    return f"expected a multiple of {BLOCK_SIZE} bytes from {BLOCK_SIZE} to {MAX_PAYLOAD_SIZE}, found {length}"


def _mac(
    header: PacketHeader,
    guest_length: int,
    payload: bytes,
    keys: TransportKeys,
    measurement: LaunchMeasurement,
) -> bytes:
    message = b"".join(
        (
            _CONTEXT,
            header.flags.to_bytes(4, "little"),
            header.iv,
            guest_length.to_bytes(4, "little"),
            len(payload).to_bytes(4, "little"),
            payload,
            measurement.mac,
        )
    )
    return hmac.digest(keys.tik, message, hashlib.sha256)
