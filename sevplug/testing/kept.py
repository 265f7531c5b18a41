"""A guest that was booted once, for many tests: each begins where it stood then."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sevplug.testing.guest import Guest

if TYPE_CHECKING:
    from sevplug.core.snapshot.snapshot import Snapshot


class KeptGuest:
    """Call it, and the guest is back at its snapshot.

    There is one guest: what an earlier call returned is the same object, and goes back with it.
    """

    def __init__(self, guest: Guest, snapshot: Snapshot) -> None:
        self._guest = guest
        self.snapshot = snapshot

    def __call__(self) -> Guest:
        """The guest as it was, at the cost of the memory that was touched since."""
        __tracebackhide__ = True
        self._guest.restore(self.snapshot)
        return self._guest
