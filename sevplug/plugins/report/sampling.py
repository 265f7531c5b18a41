"""Memory by address over time: samples at moments that matter, and at regular times while the guest runs.

A sample of 256 MiB takes less than a millisecond, one of 2 GiB three; there are a hundred and some at most, since
regular ones are thinned out as a run gets longer.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from sevplug.core.memory import PAGE_SIZE, MemoryRange
from sevplug.plugins.heartbeat import Heartbeat
from sevplug.plugins.phases import BUILD, PhasesPlugin
from sevplug.plugins.phases import NAME as PHASES_NAME
from sevplug.plugins.report.values import RangeMap, Sample

if TYPE_CHECKING:
    from sevplug.core.machine import Machine

# Seconds between two regular samples at first, and how many there may be.
_PERIOD, _MOST = 0.1, 120
# A plug-in that pauses and resumes all day long is no reason to keep all of it.
_MOST_KEPT = 60
# Into how many pieces RAM is cut for a sample, and for the map of the end.
_PIECES, _FINE_PIECES, _ROM_PIECES = 256, 1024, 256


class Sampler:
    """The samples of one machine; all on its thread."""

    def __init__(self, machine: Machine, started: float) -> None:
        self._machine = machine
        self._started = started
        self._samples: list[Sample] = []
        self._heartbeat = Heartbeat(machine, _PERIOD, self._regular)

    def start(self) -> None:
        """Take samples at regular times from now on."""
        if self._machine.memory.page_counts() is not None:
            self._heartbeat.start()

    def stop(self) -> tuple[Sample, ...]:
        """All samples; no more will be taken."""
        self._heartbeat.stop()
        return tuple(self._samples)

    def take(self, *, kept: bool = True) -> None:
        """A sample now, where memory has two forms."""
        machine = self._machine
        ranges = tuple(
            tuple(entry.forms.pieces(piece_pages(entry.size, _PIECES)))
            for entry in machine.memory.ram
            if entry.forms is not None
        )
        if not ranges or (kept and sum(sample.kept for sample in self._samples) >= _MOST_KEPT):
            return
        phases = machine.private.get(PHASES_NAME)
        phase = phases.phase if isinstance(phases, PhasesPlugin) else BUILD
        self._samples.append(Sample(time.monotonic() - self._started, machine.clock.now / 1e9, phase, ranges, kept))

    def _regular(self) -> None:
        phases = self._machine.private.get(PHASES_NAME)
        if isinstance(phases, PhasesPlugin):
            phases.look(self._machine)
        self.take(kept=False)
        regular = [sample for sample in self._samples if not sample.kept]
        if len(regular) >= _MOST:
            dropped = {id(sample) for sample in regular[::2]}
            self._samples = [sample for sample in self._samples if id(sample) not in dropped]
            self._heartbeat.period *= 2


def final_map(machine: Machine) -> tuple[RangeMap, ...]:
    """Guest-physical memory as it is now, from the lowest address up."""
    return tuple(_range_map(machine, entry) for entry in sorted(machine.memory.ranges, key=lambda entry: entry.gpa))


def _range_map(machine: Machine, entry: MemoryRange) -> RangeMap:
    ram = entry in machine.memory.ram
    pages = piece_pages(entry.size, _FINE_PIECES if ram else _ROM_PIECES)
    pieces = None if entry.forms is None else tuple(entry.forms.pieces(pages))
    return RangeMap(entry.name, entry.gpa, entry.size, ram, pages * PAGE_SIZE, pieces)


def piece_pages(size: int, most: int) -> int:
    """Pages in a piece, a power of two, so that ``size`` bytes are no more than ``most`` pieces."""
    pages = 1
    while pages * PAGE_SIZE * most < size:
        pages *= 2
    return pages
