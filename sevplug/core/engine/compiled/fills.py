"""The compiled callback for a miss of the translation cache, over one machine's RAM."""

from __future__ import annotations

import ctypes
from array import array
from collections.abc import Iterable
from ctypes import c_void_p

from sevplug import native
from sevplug.core.engine import library as engine_library
from sevplug.core.engine.compiled.structures import OFFSETS, Fills, Range, address_of_function
from sevplug.core.engine.pages import CodePlaces, LocalPages, RamPages
from sevplug.core.engine.vcpu import EngineCpu

FLUSH_CALLBACK = ctypes.CFUNCTYPE(None)


def ranges_of(pages: Iterable[RamPages]) -> tuple[list[Range], list[object]]:
    """The ranges of RAM as C sees them, and what has to be kept as long as they are used."""
    ranges, kept = [], []
    for ram in pages:
        buffers: dict[str, memoryview | bytearray | array[int]] = {
            "bytes": ram.buffer,
            "code": ram.code,
            "handed_out": ram.handed_out,
            "executed": ram.executed,
            "stored": ram.stored,
        }
        if ram.forms is not None:
            buffers |= {"states": ram.forms.states, "linear": ram.forms.linear}
        found = Range(gpa=ram.gpa, size=len(ram.buffer))
        for name, buffer in buffers.items():
            address, keep = native.address_of(buffer)
            setattr(found, name, address)
            kept.append(keep)
        ranges.append(found)
    return ranges, kept


class CompiledFills:
    """The compiled callback over one machine's RAM; ``python`` is the callback for all that is rare."""

    def __init__(
        self,
        library: ctypes.CDLL,
        cpu: EngineCpu,
        pages: list[RamPages],
        places: CodePlaces,
        local: LocalPages,
        python: object,
    ) -> None:
        forget_all = FLUSH_CALLBACK(cpu.flush_translations)
        ranges, self._kept = ranges_of(pages)
        self.shared = shared = Fills(
            state=cpu.state.env_address,
            **OFFSETS,
            python=address_of_function(python),
            local_size=len(local.linear),
            cpu=cpu.state.cpu_address,
            flush_page=address_of_function(engine_library.load().tlb_flush_page_x86_64),
            flush=address_of_function(forget_all),
        )
        for number, ram in enumerate(ranges):
            shared.walker.ranges[number] = ram
        for name, buffer in (
            ("local", local.linear),
            ("local_count", local.count),
            ("code_linear", places.linear),
            ("code_gpa", places.gpa),
            ("flushes", cpu.flushes),
        ):
            address, keep = native.address_of(buffer)
            setattr(shared, name, address)
            self._kept.append(keep)
        self._kept.append(forget_all)
        function = ctypes.cast(library.sevplug_fill, c_void_p)
        # What the engine has to call, and with which argument.
        self.callback = function, c_void_p(ctypes.addressof(shared))

    def bind(self, mask: int, too_wide: int) -> None:
        """Take fills from now on; the arguments as in walk.h."""
        self.shared.walker.mask, self.shared.walker.too_wide = mask, too_wide
        self.shared.enabled = 1

    def unbind(self) -> None:
        """Leave all to Python."""
        self.shared.enabled = 0

    @property
    def bound(self) -> bool:
        """Whether it takes fills."""
        return bool(self.shared.enabled)

    def close(self) -> None:
        """Let go of the memory's buffers."""
        self.unbind()
        self._kept.clear()

    @property
    def count(self) -> int:
        """Fills that Python saw nothing of."""
        found: int = self.shared.count
        return found
