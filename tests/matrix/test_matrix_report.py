"""What is told of the rows of a matrix: outcomes, the table's columns, JSON, and JUnit XML as CI systems read it."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sevplug.matrix import report
from sevplug.matrix.judging import Ended, judge, one_line
from sevplug.matrix.junit import junit
from sevplug.matrix.values import ERROR, FAILED, PASSED, SKIPPED, Cell, Expectation, Row

SHUTDOWN = {"result": "shutdown", "detail": "it switched itself off"}
PANIC = {"result": "panic", "detail": "Kernel panic - not syncing"}


def ended(code: int = 0, summary: Mapping[str, Any] | None = SHUTDOWN, **more: Any) -> Ended:
    settings = {"overdue": False, "limit": 5.5, "complaint": "", "says": lambda text: text in "hello world"} | more
    return Ended(code, summary=summary, **settings)


@pytest.mark.parametrize(
    ("how", "expected", "outcome"),
    [
        (ended(), Expectation(), (PASSED, "")),
        (ended(), Expectation(said=("hello", "world"), unsaid=("bye",)), (PASSED, "")),
        (ended(1, PANIC), Expectation(None, frozenset({"panic"})), (PASSED, "")),
        (ended(2, None, complaint="--bios x: no such file"), Expectation(frozenset({2})), (PASSED, "")),
        (
            ended(1, PANIC),
            Expectation(),
            (FAILED, "panic: Kernel panic - not syncing (exit status 1, expected 0)"),
        ),
        (
            ended(0),
            Expectation(None, frozenset({"panic", "hang"})),
            (FAILED, "shutdown: it switched itself off (expected hang or panic)"),
        ),
        (ended(), Expectation(said=("bye",)), (FAILED, "the serial port did not say 'bye'")),
        (ended(), Expectation(unsaid=("hello",)), (FAILED, "the serial port said 'hello'")),
        (ended(4, None, complaint="refused"), Expectation(), (FAILED, "refused (exit status 4, expected 0)")),
        (ended(2, None, complaint="no file"), Expectation(), (ERROR, "no file (exit status 2, expected 0)")),
        # A traceback of Python's ends with status 1 too.
        (
            ended(1, None, complaint="ZeroDivisionError: division by zero"),
            Expectation(frozenset({1})),
            (ERROR, "exit status 1 and no summary: ZeroDivisionError: division by zero"),
        ),
        (
            ended(2, complaint="a plug-in failed"),
            Expectation(),
            (ERROR, "a plug-in failed (exit status 2, expected 0)"),
        ),
        (ended(-11), Expectation(), (ERROR, "the process died of SIGSEGV")),
        (
            ended(-9, None),
            Expectation(),
            (ERROR, "the process died of SIGKILL, which the kernel sends when memory runs out"),
        ),
        (
            ended(-9, None, overdue=True),
            Expectation(),
            (ERROR, "the process hung: killed after 5.5 s, since its own time limit did not end it"),
        ),
    ],
)
def test_a_process_is_judged_by_what_was_expected(how: Ended, expected: Expectation, outcome: tuple[str, str]) -> None:
    assert judge(how, expected) == outcome


@given(st.text())
def test_what_a_guest_says_moves_no_cursor(text: str) -> None:
    assert one_line(text).isprintable()
    assert len(one_line(text)) <= 300


ROWS = (
    Row(Cell("a", {"options": "a"}, ("--seed", "1 2"), "/", 1.0), PASSED, "", 0, SHUTDOWN, "hi\r\n", "ab", "", 1.25),
    Row(Cell("b", {}, (), "/", 1.0), FAILED, "panic: x < y & z", 1, PANIC, "\x1b[31mred\0", "cd", "log\n", 0.5),
    Row(Cell("c", {}, (), "/", 1.0), ERROR, "died", seconds=0.25),
    Row(Cell("d", {}, (), "/", 1.0), SKIPPED, "not run"),
)


def test_a_table_has_a_line_for_each_row() -> None:
    assert [report.columns(row) for row in ROWS] == [
        ("a", "passed", "shutdown", "0", "1.2", ""),
        ("b", "failed", "panic", "1", "0.5", "panic: x < y & z"),
        ("c", "error", "-", "-", "0.2", "died"),
        ("d", "skipped", "-", "-", "0.0", "not run"),
    ]
    assert report.tally(ROWS, 4.0) == "4 cells: 1 passed, 1 failed, 1 error, 1 skipped in 4.0 s, 30 guests a minute"
    assert report.tally(ROWS[:1], 0.0) == "1 cell: 1 passed in 0.0 s"


def test_the_document_has_everything() -> None:
    document = json.loads(json.dumps(report.document(ROWS, "m.toml", 4.0)))
    cells = document.pop("cells")
    assert document == {"matrix": "m.toml", "seconds": 4.0, "passed": 1, "failed": 1, "error": 1, "skipped": 1}
    assert [cell["name"] for cell in cells] == ["a", "b", "c", "d"]
    assert cells[0] == {
        "name": "a",
        "axes": {"options": "a"},
        "command": "sevplug run --seed '1 2'",
        "outcome": "passed",
        "reason": "",
        "result": "shutdown",
        "status": 0,
        "seconds": 1.25,
        "serial": "hi\r\n",
        "serial_sha256": "ab",
        "log": "",
        "summary": SHUTDOWN,
    }


# -- JUnit XML ---------------------------------------------------------------------------------------------------------

# Jenkins' jenkins-junit.xsd, which GitLab's, GitHub's and Azure's readers agree with: element -> (attributes that it
# must have, that it may have, elements that may be in it, whether text may).
SCHEMA: dict[str, tuple[set[str], set[str], set[str], bool]] = {
    "testsuites": (set(), {"name", "time", "tests", "failures", "disabled", "errors"}, {"testsuite"}, False),
    "testsuite": (
        {"name", "tests"},
        {"failures", "errors", "time", "disabled", "skipped", "timestamp", "hostname", "id", "package"},
        {"properties", "testcase", "system-out", "system-err"},
        False,
    ),
    "testcase": (
        {"name", "classname"},
        {"assertions", "time", "status"},
        {"skipped", "error", "failure", "system-out", "system-err"},
        False,
    ),
    "failure": (set(), {"type", "message"}, set(), True),
    "error": (set(), {"type", "message"}, set(), True),
    "skipped": (set(), {"message"}, set(), True),
    "system-out": (set(), set(), set(), True),
    "system-err": (set(), set(), set(), True),
}
NUMBERS = {"tests", "failures", "errors", "skipped"}


def assert_valid(element: ET.Element) -> None:
    needed, allowed, children, text = SCHEMA[element.tag]
    assert needed <= set(element.attrib) <= needed | allowed
    assert all(value.isdecimal() for name, value in element.items() if name in NUMBERS)
    assert float(element.get("time", "0")) >= 0
    assert text or not (element.text or "").strip()
    for child in element:
        assert child.tag in children
        assert not (child.tail or "").strip()
        assert_valid(child)


def parsed(rows: tuple[Row, ...]) -> ET.Element:
    root = ET.fromstring(junit(rows, "m", 4.0).encode())
    assert root.tag == "testsuites"
    assert_valid(root)
    return root


def test_each_outcome_is_what_a_ci_system_calls_it() -> None:
    (suite,) = parsed(ROWS)
    assert dict(suite.attrib) == {
        "name": "m",
        "tests": "4",
        "failures": "1",
        "errors": "1",
        "skipped": "1",
        "time": "4.000",
        "package": "sevplug",
    }
    shown = [(case.get("name"), [(child.tag, child.get("message"), child.text) for child in case]) for case in suite]
    assert shown == [
        ("a", [("system-out", None, "hi\n")]),  # a parser of XML makes one line end of two
        (
            "b",
            [
                ("failure", "panic: x < y & z", None),
                ("system-out", None, "#x1B[31mred#x00"),
                ("system-err", None, "log\n"),
            ],
        ),
        ("c", [("error", "died", None)]),
        ("d", [("skipped", "not run", None)]),
    ]


@settings(max_examples=60)
@given(st.text(), st.text(), st.sampled_from([PASSED, FAILED, ERROR, SKIPPED]))
def test_no_text_of_a_guest_breaks_the_xml(name: str, serial: str, outcome: str) -> None:
    parsed((Row(Cell(name, {}, (), "/", 1.0), outcome, serial, 1, {"result": serial}, serial, None, serial),))


def test_a_surrogate_of_a_broken_name_does_not_break_the_xml_either() -> None:
    parsed((Row(Cell("\udcff", {}, (), "/", 1.0), PASSED, serial="\ud800\ufffe"),))
