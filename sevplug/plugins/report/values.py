"""What a report is made of: immutable values, collected while a machine lives.

Text that a guest or an image has to do with is in them as it came; whoever shows it escapes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from sevplug.core.views import PageCounts


@attrs.frozen
class Moment:
    """One event: ``seconds`` of wall time since the machine was begun, ``guest_seconds`` of the guest's own.

    ``fields``: plain values.  ``state``: of the launch, afterwards.  ``sha256``: of the region that was measured.
    """

    seconds: float
    guest_seconds: float
    event: str
    fields: Mapping[str, Any]
    state: str
    sha256: str | None = None


@attrs.frozen
class Sample:
    """Memory at one moment: of each range of RAM the counts of its pieces, from the lowest address up."""

    seconds: float
    guest_seconds: float
    phase: str
    ranges: tuple[tuple[PageCounts, ...], ...]
    # Something happened here; others are taken at regular times, and may be thinned out.
    kept: bool = True

    @property
    def total(self) -> PageCounts:
        """All of RAM."""
        pieces = [attrs.astuple(piece) for pieces in self.ranges for piece in pieces]
        return PageCounts(*(sum(column) for column in zip(*pieces, strict=True)))


@attrs.frozen
class RangeMap:
    """A range of guest-physical memory at the end.

    ``piece``: bytes that one of ``pieces`` is about; None where memory has but one form.  ``ram``: it is no ROM.
    """

    name: str
    gpa: int
    size: int
    ram: bool
    piece: int
    pieces: tuple[PageCounts, ...] | None

    @property
    def end(self) -> int:
        return self.gpa + self.size


@attrs.frozen
class ImageInfo:
    """A file that the guest started from, or its command line; ``size`` in bytes, ``sha256`` in hex."""

    role: str
    path: str
    size: int
    sha256: str


@attrs.frozen
class PluginRow:
    """An installed plug-in; ``on``: it took part."""

    name: str
    version: str
    distribution: str
    on: bool


@attrs.frozen
class ConsoleOutput:
    """What a guest sent by a port: its first and last bytes, and how many there were in all (``total``)."""

    name: str
    head: bytes = attrs.field(repr=False)
    tail: bytes = attrs.field(repr=False)
    total: int

    @property
    def left_out(self) -> int:
        return max(0, self.total - len(self.head) - len(self.tail)) if self.tail else 0


@attrs.frozen
class Outcome:
    """How it ended.

    ``result``: a key of `sevplug.core.result.RESULTS`, or ``failed`` where an error ended it, ``unfinished`` where the
    machine was put away before its end.  ``traceback``: of an error that a plug-in or sevplug did not raise on purpose.
    """

    result: str
    detail: str
    orderly: bool
    traceback: str = ""


@attrs.frozen
class Report:
    """All of one machine's life.

    ``started``: a date and time for people, UTC.  ``seconds``: of wall time, from the first hook to the last.
    ``moments_left_out``: events that were too many to keep.  ``page_size`` in bytes.
    """

    name: str
    version: str
    python: str
    started: str
    seconds: float
    guest_seconds: float
    outcome: Outcome
    configuration: tuple[tuple[str, str], ...]
    images: tuple[ImageInfo, ...]
    plugins: tuple[PluginRow, ...]
    moments: tuple[Moment, ...]
    moments_left_out: int
    counters: Mapping[str, int]
    summary: Mapping[str, Any]
    samples: tuple[Sample, ...]
    ranges: tuple[RangeMap, ...]
    consoles: tuple[ConsoleOutput, ...]
    page_size: int = 4096
