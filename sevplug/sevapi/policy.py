"""The guest policy: what the owner allows a host to do with the guest."""

from __future__ import annotations

import enum

import attrs

from sevplug.sevapi.checks import unsigned
from sevplug.sevapi.status import Status
from sevplug.sevapi.version import ApiVersion

_RESERVED = 0x0000FFC0


class PolicyBit(enum.IntFlag):
    """The named bits of a policy. Source: SEV API, chapter 3, "Guest Policy Structure"."""

    NODBG = 1 << 0
    NOKS = 1 << 1
    ES = 1 << 2
    NOSEND = 1 << 3
    DOMAIN = 1 << 4
    SEV = 1 << 5


@attrs.frozen
class Policy:
    """A guest policy: 32 bits, of which 5:0 are flags, 23:16 and 31:24 the lowest API version allowed.

    Raises FormatError for a value that does not fit 32 bits. Reserved bits can be represented, since an owner
    can ask for them; `check` turns them down.
    """

    value: int = attrs.field(validator=unsigned(32))

    def __contains__(self, bit: PolicyBit) -> bool:
        return bool(self.value & bit)

    @property
    def min_api_major(self) -> int:
        """The lowest API major version the guest may run on."""
        return self.value >> 16 & 0xFF

    @property
    def min_api_minor(self) -> int:
        """The lowest API minor version the guest may run on, within `min_api_major`."""
        return self.value >> 24

    @property
    def reserved(self) -> int:
        """The reserved bits (15:6) that are set, in place."""
        return self.value & _RESERVED

    def to_bytes(self) -> bytes:
        """Four bytes, little-endian, as they enter MACs and signatures."""
        return self.value.to_bytes(4, "little")

    def __int__(self) -> int:
        return self.value

    def __str__(self) -> str:
        words = [str(bit.name).lower() for bit in PolicyBit if bit in self]
        if self.reserved:
            words.append(f"reserved {self.reserved:#x}")
        if self.min_api_major or self.min_api_minor:
            words.append(f"API {self.min_api_major}.{self.min_api_minor} or later")
        return f"{self.value:#x} ({', '.join(words) or 'no restriction'})"


def check(policy: Policy, api: ApiVersion) -> Status:
    """What firmware of version `api` answers to a LAUNCH_START with `policy`.

    POLICY_FAILURE when the policy asks for a later API version or sets a reserved bit, else SUCCESS. Whether
    an SEV-ES guest (bit ES) can be launched depends on the platform and is not judged here. AMD's firmware
    makes these checks where the launch comes with an owner's session. Source: `sev_guest_verify_policy` in
    AMD's published firmware (AMD-ASPFW, `sev_guest.c`).
    """
    if (api.major, api.minor) < (policy.min_api_major, policy.min_api_minor) or policy.reserved:
        return Status.POLICY_FAILURE
    return Status.SUCCESS
