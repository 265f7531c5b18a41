"""The errors a client is told about."""

from __future__ import annotations

GENERIC = "GenericError"
COMMAND_NOT_FOUND = "CommandNotFound"


class QmpError(Exception):
    """A command is refused; the text is the ``desc`` of the reply, ``error_class`` its ``class``.

    Source: QEMU's ``docs/interop/qmp-spec.rst`` (section "error"), ``qapi/error.json`` (the classes).
    """

    def __init__(self, desc: str, error_class: str = GENERIC) -> None:
        super().__init__(desc)
        self.error_class = error_class
