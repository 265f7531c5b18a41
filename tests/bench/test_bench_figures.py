"""The bench's own parts, without a guest: figures, table, times of small processes, samples of one."""

from __future__ import annotations

import json
import sys

import attrs
import pytest
from figures import Goal, Row, Share, Spread
from measuring import Guests
from parts import missing
from report import document, markdown
from rows import measured
from sampling import python_share
from timing import NotBooted, resident_at, seconds_of, seconds_until
from tracing import engine_ranges

ROW = Row("a guest", Spread((3.0, 2.0, 9.0)), Spread((2.5, 2.0, 1.5)), share=Share(400, 100), goal=Goal(2.0))
MAPS = """\
55d3c0e00000-55d3c10a0000 r-xp 00000000 08:01 1234 /usr/bin/python3.11
7f0000000000-7f0040000000 rwxp 00000000 00:00 0
7f1000000000-7f1001000000 r-xp 00001000 08:01 5678 /a b/unicorn/lib/libunicorn.so.2
7f1001000000-7f1002000000 rw-p 01001000 08:01 5678 /a b/unicorn/lib/libunicorn.so.2
7ffd00000000-7ffd00002000 r-xp 00000000 00:00 0 [vdso]
"""


def test_a_row_has_medians_spread_ratio_and_share() -> None:
    assert (ROW.ours.median, ROW.ours.least, ROW.ours.most) == (3.0, 2.0, 9.0)
    assert ROW.ratio == 1.5
    assert ROW.share is not None
    assert ROW.share.fraction == 0.25


@pytest.mark.parametrize(
    ("goal", "met"), [(None, None), (Goal(1.5), True), (Goal(1.4), False), (Goal(2.9, of_ratio=False), False)]
)
def test_a_goal_is_of_the_ratio_or_of_our_own_figure(goal: Goal | None, met: bool | None) -> None:
    assert attrs.evolve(ROW, goal=goal).met is met


def test_a_spread_needs_a_run() -> None:
    with pytest.raises(ValueError, match="figures"):
        Spread(())


def test_the_table_says_what_was_measured_where_and_how() -> None:
    unsampled = Row("another", Spread((70.4,)), Spread((50.0,)), "itself", "MiB", goal=Goal(60, of_ratio=False))
    lines = markdown([ROW, unsampled], {"cores": "2"}, 0.005).splitlines()
    assert lines[2:4] == [
        "| a guest | 3.00 s (2.00 to 9.00) | 2.00 s (1.50 to 2.50) | QEMU | 1.50 | ≤ 2, met | 25% |",
        "| another | 70 MiB (70 to 70) | 50 MiB (50 to 50) | itself | 1.41 | ≤ 60 MiB, missed |  |",
    ]
    assert len({line.count("|") for line in lines[:4]}) == 1
    assert lines[5] == "cores 2."
    assert "every 5 ms" in " ".join(lines)


def test_the_document_holds_every_run() -> None:
    found = json.loads(json.dumps(document([ROW], {"cores": "2"}, rounds=3)))
    (row,) = found["rows"]
    assert row["sevplug"] == {"median": 3.0, "min": 2.0, "max": 9.0, "runs": [3.0, 2.0, 9.0]}
    assert row["peer"]["median"] == 2.0
    assert (row["unit"], row["peer_name"], row["ratio"], row["met"]) == ("s", "QEMU", 1.5, True)
    assert (row["goal"], row["python_share"], row["python_samples"]) == ({"most": 2.0, "of": "ratio"}, 0.25, 400)


def test_one_of_many_is_told_as_a_number_a_minute() -> None:
    row = attrs.evolve(ROW, ours=Spread((0.5,)), peer=Spread((0.6,)), one_of_many=True)
    assert "| 0.50 s (0.50 to 0.50), 120 a minute | 0.60 s (0.60 to 0.60), 100 a minute |" in markdown([row], {}, 0.005)
    assert row.as_json()["a_minute_and_core"] == 120
    assert ROW.as_json()["a_minute_and_core"] is None


def test_a_guest_of_many_is_timed_by_the_core() -> None:
    row = Guests("many", lambda: (["sleep", "0.1"], ["sleep", "0.1"]), "itself", count=4, jobs=2).run(1)
    assert row.ours.median > 0.05
    assert 0.025 < row.peer.median < row.ours.median


def test_each_row_has_a_name_of_its_own() -> None:
    names = [row.name for row in measured()]
    assert len(set(names)) == len(names)


def test_a_time_is_taken_until_the_text_is_there() -> None:
    assert 0 < seconds_until(["sh", "-c", "echo half; echo whole; exec sleep 60"], b"half\nwhole") < 60


@pytest.mark.parametrize("then", ["true", "exec sleep 60"])
def test_a_guest_that_does_not_come_up_fails_with_what_it_said(then: str) -> None:
    with pytest.raises(NotBooted, match=r"'up' did not come(?s:.*)something else(?s:.*)why"):
        seconds_until(["sh", "-c", f"echo something else; echo why >&2; {then}"], b"up", 0.3)


def test_the_peak_of_resident_memory_is_that_of_the_process() -> None:
    words = f"import time; x = bytearray(b'x') * {64 << 20}; print('up', flush=True); time.sleep(60)"
    assert 64 < resident_at([sys.executable, "-c", words], b"up") < 200
    with pytest.raises(NotBooted, match="'up' did not come"):
        resident_at(["sh", "-c", "echo down; exec sleep 60"], b"up", 0.3)


def test_a_process_that_fails_is_not_a_time() -> None:
    assert seconds_of(["cat"], b"typed") > 0
    with pytest.raises(NotBooted, match=r"exit status 3(?s:.*)complaint"):
        seconds_of(["sh", "-c", "echo complaint >&2; exit 3"])


def test_the_engine_is_its_library_and_what_it_translates_to() -> None:
    assert [(hex(start), engine) for start, _end, engine in engine_ranges(MAPS)] == [
        ("0x55d3c0e00000", False),
        ("0x7f0000000000", True),
        ("0x7f1000000000", True),
        ("0x7ffd00000000", False),
    ]


def test_a_process_without_the_engine_is_python_in_all_samples() -> None:
    share = python_share(["sh", "-c", "sleep 0.1; echo up; exec sleep 60"], b"up")
    if not share.samples:
        missing("samples are missing: this machine does not let a process follow its child with ptrace(2)")
    assert share.fraction == 1.0


def test_samples_end_with_the_process() -> None:
    share = python_share(["sh", "-c", "sleep 0.1"], None)
    assert share.samples < 100
