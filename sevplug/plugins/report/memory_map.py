"""Pictures of memory as shapes: the map of the end by address, and the map over time.  Pure.

A shape is the data of an SVG path over a grid of unit squares, one path for each look, so that a page with a thousand
squares has a handful of elements.  Numbers are the only thing that gets into it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Final

import attrs

from sevplug.core.views import PageCounts
from sevplug.plugins.report.values import RangeMap, Sample

COLUMNS: Final = 64
# The looks of a piece of memory, and what they say.
LOOKS: Final = {
    "p1": "private, less than a third of it touched",
    "p2": "private, up to two thirds touched",
    "p3": "private, more than two thirds touched",
    "mixed": "private and shared pages",
    "shared": "shared",
    "untouched": "untouched",
}


def look(piece: PageCounts) -> str:
    """Which of `LOOKS` ``piece`` has."""
    if piece.private and piece.shared:
        return "mixed"
    if piece.shared:
        return "shared"
    if not piece.private:
        return "untouched"
    touched = 3 * piece.private / (piece.private + piece.untouched)
    return "p1" if touched < 1 else "p2" if touched < 2 else "p3"


@attrs.frozen
class MapRow:
    """A row of squares: the addresses ``[gpa, end)``.

    ``squares``: how many there are; ``shapes``: path data by look; ``marks``: of those with converted pages.
    ``counts``: their sum.
    """

    gpa: int
    end: int
    squares: int
    shapes: Mapping[str, str]
    marks: str
    counts: PageCounts


def map_rows(entry: RangeMap) -> tuple[MapRow, ...]:
    """The rows of one range; none where memory has but one form."""
    rows = []
    for first in range(0, len(entry.pieces or ()), COLUMNS):
        pieces = (entry.pieces or ())[first : first + COLUMNS]
        gpa = entry.gpa + first * entry.piece
        end = min(entry.end, gpa + COLUMNS * entry.piece)
        marks = "".join(f"M{number + 0.3:g} .3h.4v.4h-.4z" for number, piece in enumerate(pieces) if piece.conversions)
        rows.append(MapRow(gpa, end, len(pieces), _shapes(map(look, pieces)), marks, total(pieces)))
    return tuple(rows)


def total(pieces: Iterable[PageCounts]) -> PageCounts:
    """The sum of ``pieces``."""
    columns = list(zip(*map(attrs.astuple, pieces), strict=True))
    return PageCounts(*(sum(column) for column in columns)) if columns else PageCounts(0, 0, 0, 0)


def _shapes(looks: Iterable[str]) -> dict[str, str]:
    """One row of squares."""
    found: dict[str, str] = {}
    at = 0
    for name, run in groupby(looks):
        width = len(list(run))
        found[name] = found.get(name, "") + f"M{at} 0h{width}v1h-{width}z"
        at += width
    return found


@attrs.frozen
class TableRow:
    """Memory ``[gpa, end)`` of one look, in words for those who cannot see the map; ``counts``: its pages."""

    gpa: int
    end: int
    look: str
    counts: PageCounts


def table_rows(entry: RangeMap, most: int) -> tuple[list[TableRow], int]:
    """Neighbours of one look together, ``most`` at most, and how many were left out."""
    rows = []
    number = 0
    for name, run in groupby(entry.pieces or (), look):
        pieces = list(run)
        gpa = entry.gpa + number * entry.piece
        number += len(pieces)
        rows.append(TableRow(gpa, min(entry.end, entry.gpa + number * entry.piece), name, total(pieces)))
    return rows[:most], max(0, len(rows) - most)


@attrs.frozen
class TimeMap:
    """One range of RAM over time: a column for each sample, from left to right, addresses downwards."""

    columns: int
    rows: int
    shapes: Mapping[str, str]


def time_maps(samples: Sequence[Sample]) -> tuple[TimeMap, ...]:
    """One for each range of RAM."""
    if not samples:
        return ()
    return tuple(_time_map([sample.ranges[number] for sample in samples]) for number in range(len(samples[0].ranges)))


def _time_map(columns: Sequence[Sequence[PageCounts]]) -> TimeMap:
    """What stays the same from one column to the next becomes one rectangle."""
    shapes: dict[str, str] = {}
    # (first row, height, look) -> the column at which it began
    going: dict[tuple[int, int, str], int] = {}

    def draw(rectangle: tuple[int, int, str], begin: int, end: int) -> None:
        top, height, name = rectangle
        width = end - begin
        shapes[name] = shapes.get(name, "") + f"M{begin} {top}h{width}v{height}h-{width}z"

    for number, column in enumerate(columns):
        present = set(_runs(map(look, column)))
        for rectangle in [one for one in going if one not in present]:
            draw(rectangle, going.pop(rectangle), number)
        for rectangle in present - going.keys():
            going[rectangle] = number
    for rectangle, begin in going.items():
        draw(rectangle, begin, len(columns))
    return TimeMap(len(columns), len(columns[0]), shapes)


def _runs(looks: Iterable[str]) -> list[tuple[int, int, str]]:
    found = []
    at = 0
    for name, run in groupby(looks):
        height = len(list(run))
        found.append((at, height, name))
        at += height
    return found


@attrs.frozen
class Amounts:
    """How many pages had each form, over time: stacked areas over a field of ``columns`` by 100, and ``conversions``:
    how many there were up to each column from the one before, as bars over a field of the same size."""

    columns: int
    shapes: Mapping[str, str]
    conversions: str
    most: int


def amounts(samples: Sequence[Sample]) -> Amounts:
    """The areas of ``samples``."""
    totals = [sample.total for sample in samples]
    shared, private = "", ""
    for number, counts in enumerate(totals):
        pages = counts.private + counts.shared + counts.untouched
        low, high = 100 * counts.shared / pages, 100 * (counts.shared + counts.private) / pages
        shared += f"M{number} 100h1V{100 - low:.5g}h-1z"
        private += f"M{number} {100 - low:.5g}h1V{100 - high:.5g}h-1z"
    new = [now.conversions - before.conversions for before, now in zip(totals[:1] + totals, totals, strict=False)]
    most = max(new, default=0)
    bars = "".join(
        f"M{number} 100h1V{100 - 100 * count / most:.5g}h-1z" for number, count in enumerate(new) if count > 0
    )
    return Amounts(len(samples), {"shared": shared, "p3": private}, bars, most)


@attrs.frozen
class PhaseSpan:
    """``columns`` neighbouring samples of one phase, from ``seconds`` on."""

    phase: str
    columns: int
    seconds: float


def phase_spans(samples: Sequence[Sample]) -> list[PhaseSpan]:
    """The phases of the map over time, from left to right."""
    found = []
    for phase, run in groupby(samples, lambda sample: sample.phase):
        members = list(run)
        found.append(PhaseSpan(phase, len(members), members[0].seconds))
    return found
