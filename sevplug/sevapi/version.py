"""The version of the SEV firmware's API, which is part of what a launch measurement covers."""

from __future__ import annotations

import attrs

from sevplug.sevapi.checks import unsigned


@attrs.frozen
class ApiVersion:
    """API major, API minor and build number, one byte each. Source: SEV API, PLATFORM_STATUS.

    Raises FormatError for a part outside 0 to 255.
    """

    major: int = attrs.field(validator=unsigned(8))
    minor: int = attrs.field(validator=unsigned(8))
    build: int = attrs.field(validator=unsigned(8))

    def to_bytes(self) -> bytes:
        """The three bytes as they enter a launch measurement: major, minor, build."""
        return bytes((self.major, self.minor, self.build))

    def __str__(self) -> str:
        return f"{self.major}.{self.minor} build {self.build}"


# What an emulated platform says of itself: the version that current EPYC firmware reports.
EMULATED_API = ApiVersion(1, 55, 24)
