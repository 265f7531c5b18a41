"""The machine's moments as QMP events.

Source: QEMU's ``qapi/run-state.json`` (events and ``ShutdownCause``) and ``docs/interop/qmp-spec.rst``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from sevplug.core import events, result
from sevplug.plugins.qmp.writer import encode_line

# Moments of this plug-in for the hook ``notify``.
QMP_LISTENING = "qmp.listening"  # address
QMP_WAITING = "qmp.waiting"  # address: the machine starts when a client has come

# How a run ended, for those ends that no SHUTDOWN announced: (guest, reason).  A triple fault asks for a reset.
_CAUSES = {
    result.SHUTDOWN: (True, "guest-shutdown"),
    result.RESET: (True, "guest-reset"),
    result.FAULT: (True, "guest-reset"),
    result.QUIT: (False, "host-qmp-quit"),
    result.TIMEOUT: (False, "host-signal"),
}
_OTHER_CAUSE = (False, "host-error")


@attrs.frozen
class QmpEvent:
    """An event by name, with its data when it has any."""

    name: str
    data: Mapping[str, Any] | None = None

    def encode(self, nanoseconds: int) -> bytes:
        """The event as a line; ``nanoseconds``: host time since 1970."""
        seconds, rest = divmod(nanoseconds, 1_000_000_000)
        line: dict[str, Any] = {
            "event": self.name,
            "timestamp": {"seconds": seconds, "microseconds": rest // 1000},
        }
        if self.data is not None:
            line["data"] = self.data
        return encode_line(line)


class EventMap:
    """Which moment is which event; remembers whether the end was announced."""

    def __init__(self, reboot: bool) -> None:
        """``reboot``: the guest may reset itself; otherwise, as with QEMU's ``-no-reboot``, that is a shutdown."""
        self._reboot = reboot
        self._announced = False

    def event(self, name: str, fields: Mapping[str, Any]) -> QmpEvent | None:
        """The event for the moment ``name`` of `sevplug.core.events`, or None when clients are not told of it."""
        match name:
            case events.RUN_RESUME:
                return QmpEvent("RESUME")
            case events.RUN_STOP:
                return QmpEvent("STOP")
            case events.GUEST_RESET if self._reboot or not fields["guest"]:
                return QmpEvent("RESET", {"guest": fields["guest"], "reason": fields["reason"]})
            case events.GUEST_SHUTDOWN:
                self._announced = True
                return QmpEvent("SHUTDOWN", {"guest": fields["guest"], "reason": fields["reason"]})
            case events.RUN_END if not self._announced:
                guest, reason = _CAUSES.get(fields["result"], _OTHER_CAUSE)
                self._announced = True
                return QmpEvent("SHUTDOWN", {"guest": guest, "reason": reason})
        return None
