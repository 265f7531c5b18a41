"""The page of a report: what is on it, for every end, and that nothing that a guest says becomes markup."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

import pytest
from reports import DIGEST, EVIL, report

from sevplug.core.result import RESULTS
from sevplug.plugins.report.page import address, amount, render
from sevplug.plugins.report.values import ConsoleOutput, Outcome, RangeMap


class Reader(HTMLParser):
    """Every element with its attributes, and the text between them."""

    # Elements that HTML knows to be empty.
    VOID = frozenset({"meta", "path", "rect"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style",):
            self.text += data


def test_what_everybody_says_is_text_and_never_markup() -> None:
    page = Reader(render(report()))
    tags = {tag for tag, _attributes in page.elements}
    assert not tags & {"script", "img", "iframe", "object", "link", "form", "a"} - {"a"}
    for tag, attributes in page.elements:
        assert not any(name.startswith("on") for name in attributes), tag
        for name in ("href", "src"):
            assert (attributes.get(name) or "#").startswith("#")
    assert page.text.count("<script>alert(1)</script>") >= 8
    assert not any(character < " " and character not in "\n\t" for character in page.text)


def test_the_page_forbids_itself_everything_that_it_does_not_need() -> None:
    (policy,) = [
        attributes["content"]
        for tag, attributes in Reader(render(report())).elements
        if tag == "meta" and attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policy == "default-src 'none'; style-src 'unsafe-inline'"
    assert "http://" not in render(report())
    assert "https://" not in render(report())


def test_the_whole_story_is_there() -> None:
    text = Reader(render(report())).text
    for words in (
        "No security.",
        DIGEST,
        "ab" * 32,
        "cd" * 32,
        "bWVhc3VyZW1lbnQ=",
        "launch-secret",
        "1.55 build 24",
        "nothing from 0x10000000 to 0xffc00000, 3.7 GiB",
        "Firmware runs",
        "1\u202f234\u202f567",
        "The C-bit checker found nothing.",
        "2.5",
    ):
        assert words in text, words


@pytest.mark.parametrize("result", RESULTS)
def test_every_end_has_its_words(result: str) -> None:
    text = Reader(render(report(outcome=Outcome(result, "", False)))).text
    assert RESULTS[result] in text


def test_an_end_by_an_error_shows_it() -> None:
    failed = Outcome("failed", "plug-in 'x' failed", False, f"Traceback\n{EVIL}")
    nothing: dict[str, Any] = {
        "moments": (), "samples": (), "ranges": (), "consoles": (), "counters": {}, "summary": {}, "images": (),
    }  # fmt: skip
    text = Reader(render(report(outcome=failed, **nothing))).text
    for words in ("an error ended it", "plug-in 'x' failed", "Traceback", "The machine was not built."):
        assert words in text, words


def test_memory_of_one_form_says_so_and_shows_where_it_is() -> None:
    plain = RangeMap("ram", 0, 1 << 28, True, 4096, None)
    text = Reader(render(report(samples=(), ranges=(plain,)))).text
    assert "one form only" in text
    assert "0x0 to 0x10000000, 256 MiB" in text


def test_huge_output_is_limited_with_a_note() -> None:
    console = ConsoleOutput("Serial console", b"first\n" * 10, b"last\n" * 10, 5 << 20)
    text = Reader(render(report(consoles=(console,)))).text
    assert "Too long to be shown whole" in text
    assert "5 MiB" in text
    assert text.index("first") < text.index("MiB left out") < text.rindex("last")


def test_events_that_were_too_many_are_counted() -> None:
    assert "1\u202f000 more events" in Reader(render(report(moments_left_out=1000))).text


@pytest.mark.parametrize(
    ("gpa", "text"), [(0, "0x0"), (0xFFC00000, "0xffc00000"), (1 << 32, "0x1_00000000"), (5 << 32, "0x5_00000000")]
)
def test_addresses(gpa: int, text: str) -> None:
    assert address(gpa) == text


@pytest.mark.parametrize(("count", "text"), [(0, "0 bytes"), (1536, "1.5 KiB"), (1 << 28, "256 MiB")])
def test_amounts(count: int, text: str) -> None:
    assert amount(count) == text
