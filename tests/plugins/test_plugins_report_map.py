"""Memory as shapes: each square where it belongs, whatever the sizes."""

from __future__ import annotations

import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sevplug.core.views import PageCounts
from sevplug.plugins.report import memory_map
from sevplug.plugins.report.memory_map import COLUMNS, LOOKS
from sevplug.plugins.report.sampling import piece_pages
from sevplug.plugins.report.values import RangeMap, Sample

PRIVATE, SHARED, UNTOUCHED = PageCounts(4, 0, 0, 0), PageCounts(0, 4, 0, 0), PageCounts(0, 0, 4, 0)
MIXED, THIRD = PageCounts(3, 1, 0, 2), PageCounts(1, 0, 3, 0)
PIECES = st.sampled_from([PRIVATE, SHARED, UNTOUCHED, MIXED, THIRD])


def painted(shapes: dict[str, str]) -> dict[tuple[int, int], str]:
    """The look of each unit square that ``shapes`` cover; no two may cover one."""
    found: dict[tuple[int, int], str] = {}
    for name, path in shapes.items():
        rectangles = re.findall(r"M(\d+) (\d+)h(\d+)v(\d+)h-(\d+)z", path)
        assert "".join(f"M{x} {y}h{w}v{h}h-{b}z" for x, y, w, h, b in rectangles) == path
        for x, y, width, height, back in (map(int, numbers) for numbers in rectangles):
            assert width == back
            for place in ((x + right, y + down) for right in range(width) for down in range(height)):
                assert place not in found
                found[place] = name
    return found


@pytest.mark.parametrize(
    ("piece", "look"),
    [
        (PRIVATE, "p3"),
        (SHARED, "shared"),
        (UNTOUCHED, "untouched"),
        (MIXED, "mixed"),
        (THIRD, "p1"),
        (PageCounts(2, 0, 2, 0), "p2"),
        (PageCounts(0, 1, 3, 0), "shared"),
    ],
)
def test_the_look_of_a_piece(piece: PageCounts, look: str) -> None:
    assert memory_map.look(piece) == look
    assert look in LOOKS


@given(st.lists(PIECES, min_size=1, max_size=200))
def test_every_piece_is_a_square_of_its_row(pieces: list[PageCounts]) -> None:
    entry = RangeMap("ram", 1 << 32, len(pieces) * 0x4000, True, 0x4000, tuple(pieces))
    rows = memory_map.map_rows(entry)
    shown = [painted(dict(row.shapes))[column, 0] for row in rows for column in range(row.squares)]
    assert shown == [memory_map.look(piece) for piece in pieces]
    assert [(row.gpa, row.end) for row in rows] == [
        ((1 << 32) + first * 0x4000, (1 << 32) + min(first + COLUMNS, len(pieces)) * 0x4000)
        for first in range(0, len(pieces), COLUMNS)
    ]
    marks = sum(row.marks.count("M") for row in rows)
    assert marks == sum(bool(piece.conversions) for piece in pieces)
    table, left_out = memory_map.table_rows(entry, 1000)
    assert left_out == 0
    assert sum(row.counts.private for row in table) == sum(piece.private for piece in pieces)
    assert table[0].gpa == entry.gpa
    assert table[-1].end == entry.end


@given(st.lists(st.lists(PIECES, min_size=5, max_size=5), min_size=1, max_size=12))
def test_the_map_over_time_paints_each_piece_at_each_moment_once(columns: list[list[PageCounts]]) -> None:
    samples = [Sample(float(number), 0.0, "kernel", (tuple(column),)) for number, column in enumerate(columns)]
    (picture,) = memory_map.time_maps(samples)
    shown = painted(dict(picture.shapes))
    assert shown == {
        (x, y): memory_map.look(piece) for x, column in enumerate(columns) for y, piece in enumerate(column)
    }
    areas = memory_map.amounts(samples)
    assert areas.columns == len(columns)
    assert [span.columns for span in memory_map.phase_spans(samples)] == [len(columns)]


def test_a_guest_that_stays_as_it_is_needs_one_rectangle() -> None:
    samples = [Sample(0.0, 0.0, "kernel", ((PRIVATE,) * 4,))] * 50
    assert memory_map.time_maps(samples)[0].shapes == {"p3": "M0 0h50v4h-50z"}


def test_no_samples_are_no_pictures() -> None:
    assert memory_map.time_maps([]) == ()
    assert memory_map.map_rows(RangeMap("ram", 0, 1 << 20, True, 4096, None)) == ()


@pytest.mark.parametrize(("size", "pages"), [(256 << 20, 64), (2 << 30, 512), (160 << 20, 64), (4096, 1), (4 << 20, 1)])
def test_a_piece_is_a_power_of_two_of_pages(size: int, pages: int) -> None:
    assert piece_pages(size, 1024) == pages
    assert Counter(bin(piece_pages(size, 1024)))["1"] == 1
