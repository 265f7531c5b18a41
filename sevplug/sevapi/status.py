"""The status codes of the SEV firmware, and the words QEMU has for them."""

from __future__ import annotations

import enum


class Status(enum.IntEnum):
    """What the firmware answers to a command. Source: SEV API, 4.4, "Status Codes"; Linux `psp-sev.h`."""

    SUCCESS = 0x00
    INVALID_PLATFORM_STATE = 0x01
    INVALID_GUEST_STATE = 0x02
    INVALID_CONFIG = 0x03
    INVALID_LENGTH = 0x04
    ALREADY_OWNED = 0x05
    INVALID_CERTIFICATE = 0x06
    POLICY_FAILURE = 0x07
    INACTIVE = 0x08
    INVALID_ADDRESS = 0x09
    BAD_SIGNATURE = 0x0A
    BAD_MEASUREMENT = 0x0B
    ASID_OWNED = 0x0C
    INVALID_ASID = 0x0D
    WBINVD_REQUIRED = 0x0E
    DFFLUSH_REQUIRED = 0x0F
    INVALID_GUEST = 0x10
    INVALID_COMMAND = 0x11
    ACTIVE = 0x12
    HWERROR_PLATFORM = 0x13
    HWERROR_UNSAFE = 0x14
    UNSUPPORTED = 0x15
    INVALID_PARAM = 0x16
    RESOURCE_LIMIT = 0x17
    SECURE_DATA_INVALID = 0x18


_TEXTS = {
    Status.SUCCESS: "",
    Status.INVALID_PLATFORM_STATE: "Platform state is invalid",
    Status.INVALID_GUEST_STATE: "Guest state is invalid",
    Status.INVALID_CONFIG: "Platform configuration is invalid",
    Status.INVALID_LENGTH: "Buffer too small",
    Status.ALREADY_OWNED: "Platform is already owned",
    Status.INVALID_CERTIFICATE: "Certificate is invalid",
    Status.POLICY_FAILURE: "Policy is not allowed",
    Status.INACTIVE: "Guest is not active",
    Status.INVALID_ADDRESS: "Invalid address",
    Status.BAD_SIGNATURE: "Bad signature",
    Status.BAD_MEASUREMENT: "Bad measurement",
    Status.ASID_OWNED: "ASID is already owned",
    Status.INVALID_ASID: "Invalid ASID",
    Status.WBINVD_REQUIRED: "WBINVD is required",
    Status.DFFLUSH_REQUIRED: "DF_FLUSH is required",
    Status.INVALID_GUEST: "Guest handle is invalid",
    Status.INVALID_COMMAND: "Invalid command",
    Status.ACTIVE: "Guest is active",
    Status.HWERROR_PLATFORM: "Hardware error",
    Status.HWERROR_UNSAFE: "Hardware unsafe",
    Status.UNSUPPORTED: "Feature not supported",
    Status.INVALID_PARAM: "Invalid parameter",
    Status.RESOURCE_LIMIT: "Required firmware resource depleted",
    Status.SECURE_DATA_INVALID: "Part-specific integrity check failure",
}


def fw_error_to_str(code: int) -> str:
    """The text QEMU prints for a firmware status, "unknown error" for a code it does not know.

    Success has the empty text. Source: `sev_fw_errlist` and `fw_error_to_str` in QEMU's `target/i386/sev.c`.
    """
    try:
        return _TEXTS[Status(code)]
    except ValueError:
        return "unknown error"
