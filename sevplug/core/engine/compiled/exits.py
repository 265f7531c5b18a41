"""The compiled callback for intercepted instructions and exceptions, for one CPU."""

from __future__ import annotations

import ctypes
from array import array
from ctypes import c_void_p

from sevplug import native
from sevplug.core.engine.compiled.fills import CompiledFills
from sevplug.core.engine.compiled.structures import Exits, address_of_function


class CompiledExits:
    """It does what happens all the time, and calls ``python`` for the rest.

    ``times``: of the clock (`sevplug.core.clock.Clock.times`); ``jitter`` and ``tsc_offset``: arrays of one.
    """

    def __init__(
        self,
        library: ctypes.CDLL,
        fills: CompiledFills,
        python: object,
        *,
        times: array[int],
        jitter: array[int],
        tsc_offset: array[int],
        tsc_mhz: int,
        event_ns: int,
        pause_ns: int,
    ) -> None:
        self._kept: list[object] = [fills, python]
        self._shared = shared = Exits(
            fills=ctypes.addressof(fills.shared),
            python=address_of_function(python),
            tsc_mhz=tsc_mhz,
            event_ns=event_ns,
            pause_ns=pause_ns,
        )
        for name, words in (("times", times), ("jitter", jitter), ("tsc_offset", tsc_offset)):
            address, keep = native.address_of(words)
            setattr(shared, name, address)
            self._kept.append(keep)
        # What the engine has to call, and with which argument.
        self.callback = ctypes.cast(library.sevplug_exit, c_void_p), c_void_p(ctypes.addressof(shared))

    def enable(self, wanted: bool) -> None:
        """Whether Python is left out where it can be."""
        self._shared.enabled = wanted
