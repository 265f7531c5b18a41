"""Rows as JUnit XML, in the form that CI systems read: Jenkins' ``jenkins-junit.xsd`` (jenkinsci/xunit-plugin)."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Sequence

from sevplug.matrix.values import ERROR, FAILED, PASSED, SKIPPED, Row

# What is no Char of XML 1.0 (section 2.2), not even written as a reference.
_NO_CHARACTER = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_ELEMENTS = {FAILED: "failure", ERROR: "error", SKIPPED: "skipped"}


def junit(rows: Sequence[Row], suite: str, seconds: float) -> str:
    """The document: one suite of the name ``suite``, one test case a cell.

    Characters of a guest that XML cannot hold are written as pytest does it, ``#x1B``.
    """
    counts = Counter(row.outcome for row in rows)
    totals = {
        "tests": str(len(rows)),
        "failures": str(counts[FAILED]),
        "errors": str(counts[ERROR]),
        "time": f"{seconds:.3f}",
    }
    root = ET.Element("testsuites", totals)
    holder = ET.SubElement(
        root, "testsuite", {"name": _text(suite), **totals, "skipped": str(counts[SKIPPED]), "package": "sevplug"}
    )
    for row in rows:
        _case(holder, row, suite)
    ET.indent(root)
    document: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return document.decode() + "\n"


def _case(holder: ET.Element, row: Row, suite: str) -> None:
    attributes = {"classname": _text(suite), "name": _text(row.cell.name), "time": f"{row.seconds:.3f}"}
    case = ET.SubElement(holder, "testcase", attributes)
    if row.outcome != PASSED:
        wrong = ET.SubElement(case, _ELEMENTS[row.outcome], {"message": _text(row.reason)})
        if row.outcome != SKIPPED:
            wrong.set("type", _text(row.result or row.outcome))
    for name, text in (("system-out", row.serial), ("system-err", row.log)):
        if text:
            ET.SubElement(case, name).text = _text(text)


def _text(text: str) -> str:
    return _NO_CHARACTER.sub(lambda found: f"#x{ord(found[0]):02X}", text)
