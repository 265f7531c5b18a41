"""The errors of this library: what a caller can catch, and what each one means."""

from __future__ import annotations

from sevplug.sevapi.status import Status, fw_error_to_str


class SevApiError(ValueError):
    """Anything this library refuses. The text is one line and never holds a key or a secret."""


class FormatError(SevApiError):
    """Bytes or a text that are not what they claim to be: the message names field and expectation."""


class FirmwareError(SevApiError):
    """A request that the SEV firmware would turn down.

    `status` is the code the firmware would return; `detail` says in one line what was wrong with the request.
    """

    def __init__(self, status: Status, detail: str) -> None:
        super().__init__(status, detail)
        self.status = status
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.detail} (firmware status {self.status:#x}: {fw_error_to_str(self.status)})"
