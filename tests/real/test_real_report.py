"""Reports in a real Chromium: wide and on a phone, light and dark, without scripts, on paper."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from chromium import Page, chromium
from reports import report

from sevplug.cli.app import run_app
from sevplug.core.views import PageCounts
from sevplug.plugins.report.page import render
from sevplug.plugins.report.values import ConsoleOutput, RangeMap, Sample

pytestmark = pytest.mark.real

WIDTHS = (1280, 390)
# Every text that is shown and whose contrast with what is behind it is too low: (text, ratio).  Source: WCAG 2, success
# criterion 1.4.3, normal text.
LOW_CONTRAST = """
(() => {
  const parse = (text) => {
    const [r, g, b, a = 1] = text.match(/[\\d.]+/g).map(Number);
    return [r, g, b, a];
  };
  const over = (top, under) => [0, 1, 2].map((i) => top[i] * top[3] + under[i] * (1 - top[3])).concat(1);
  const linear = (value) => value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const element = node.parentElement;
    if (!node.textContent.trim() || element.closest('svg') || !element.checkVisibility()) continue;
    const layers = [];
    for (let at = element; at; at = at.parentElement) layers.push(parse(getComputedStyle(at).backgroundColor));
    const page = layers.reverse().reduce((under, top) => over(top, under), [255, 255, 255, 1]);
    const colour = parse(getComputedStyle(element).color);
    colour[3] *= Number(getComputedStyle(element).opacity);
    const [a, b] = [light(over(colour, page)), light(page)].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) found.push([node.textContent.trim().slice(0, 40), ratio.toFixed(2)]);
  }
  return found;
})()
"""
# Elements that reach over the right edge of the window.
TOO_WIDE = """
[...document.body.querySelectorAll('*')]
  .filter((e) => e.checkVisibility() && !e.closest('thead') && e.getBoundingClientRect().right > innerWidth + 0.5)
  .map((e) => e.tagName + '.' + e.className)
"""
COLOURS = b"".join(
    b"\x1b[%dmcolour %d \x1b[0m \x1b[%dmon it\x1b[0m\r\n" % (number, number, number + 10)
    for number in (*range(30, 38), *range(90, 98))
)
COLOURS += b"\x1b[2mdim\x1b[0m \x1b[7mreversed\x1b[0m \x1b[1;31mbold\x1b[0m\r\n" + b"long" * 200
KINDS = (PageCounts(512, 0, 0, 0), PageCounts(0, 0, 512, 0), PageCounts(0, 512, 0, 9), PageCounts(99, 9, 404, 1))


def pieces(count: int, seed: int) -> tuple[PageCounts, ...]:
    return tuple(KINDS[(number * number + seed) // 37 % 4] for number in range(count))


def large() -> str:
    """4 GiB with a hole and high memory, hundreds of moments' worth of change, and colours."""
    ranges = (
        RangeMap("ram", 0, 3 << 30, True, 4 << 20, pieces(768, 1)),
        RangeMap("firmware", 0xFFC00000, 4 << 20, False, 1 << 14, pieces(256, 2)),
        RangeMap("ram-high", 1 << 32, 1 << 30, True, 1 << 20, pieces(1024, 3)),
    )
    phases = ("build", "measure", "firmware", "kernel-start", "kernel", "userspace")
    samples = tuple(
        Sample(number / 8, number / 80, phases[number * 6 // 150], (pieces(192, number), pieces(256, number)))
        for number in range(150)
    )
    consoles = (ConsoleOutput("Serial console", COLOURS, COLOURS, 9 << 20),)
    return render(report(ranges=ranges, samples=samples, consoles=consoles))


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The report of the embedded guest, and two that are made up."""
    folder = tmp_path_factory.mktemp("pages")
    made = {name: folder / f"{name}.html" for name in ("run", "evil", "large")}
    assert run_app(["run", "--report", str(made["run"]), "--serial", "null", "--log-level", "error"]) == 0
    made["evil"].write_text(render(report()))
    made["large"].write_text(large())
    return made


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with chromium(tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.mark.parametrize("name", ["run", "evil", "large"])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_a_report_is_shown_whole_and_legibly(
    width: int, dark: bool, name: str, pages: dict[str, Path], browser: Page
) -> None:
    browser.open(pages[name], width=width, dark=dark)
    assert browser.complaints == []
    assert browser.requests == [pages[name].resolve().as_uri()]
    assert browser.evaluate("[innerWidth, document.documentElement.scrollWidth]") == [width, width]
    assert browser.evaluate(TOO_WIDE) == []
    browser.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    assert browser.evaluate(TOO_WIDE) == []
    assert browser.evaluate(LOW_CONTRAST) == []
    for selector in ("#timeline li.launch", "#memory .map-row svg path", "#memory .time svg.map path", "#console pre"):
        assert browser.evaluate(f"[...document.querySelectorAll('{selector}')].some((e) => e.checkVisibility())"), (
            selector
        )
    is_dark = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).every((v) => v < 64)"
    assert browser.evaluate(is_dark) is dark


def test_each_square_of_the_map_can_be_seen(pages: dict[str, Path], browser: Page) -> None:
    for width in WIDTHS:
        browser.open(pages["large"], width=width, dark=False)
        sizes = browser.evaluate(
            "[...document.querySelectorAll('.map-row svg')].map((e) => e.getBoundingClientRect())"
            ".map((r) => [r.width / 64, r.height])"
        )
        assert len(sizes) == 12 + 4 + 16
        assert all(across >= 3.5 and down >= 10 for across, down in sizes), sizes[0]


def test_nothing_of_it_needs_scripts(pages: dict[str, Path], browser: Page) -> None:
    """The same text and height with scripts switched off."""
    look = "[document.body.innerText, document.documentElement.scrollHeight]"
    browser.open(pages["run"], width=1280, dark=False)
    before = browser.evaluate(look)
    browser.open(pages["run"], width=1280, dark=False, scripts=False)
    assert browser.evaluate(look) == before
    assert "launch digest" in before[0]


def test_on_paper_everything_is_dark_on_light_and_nothing_scrolls(pages: dict[str, Path], browser: Page) -> None:
    browser.open(pages["large"], width=794, dark=False, print_media=True)
    assert browser.evaluate(LOW_CONTRAST) == []
    assert browser.evaluate("getComputedStyle(document.querySelector('.screen')).maxHeight") == "none"
    assert browser.evaluate("document.querySelector('nav').checkVisibility()") is False
    assert browser.evaluate("document.querySelector('details table').checkVisibility()") is True


def test_the_pictures_are_there(pages: dict[str, Path], browser: Page, tmp_path: Path) -> None:
    """A screenshot has the colours of the map: private, shared and untouched memory are told apart."""
    browser.open(pages["large"], width=1280, dark=False)
    browser.screenshot(tmp_path / "page.png")
    assert (tmp_path / "page.png").read_bytes().startswith(b"\x89PNG")
    fills = browser.evaluate(
        "['p3', 'shared', 'mixed', 'untouched']"
        ".map((name) => getComputedStyle(document.querySelector('.map-row .' + name)).fill)"
    )
    assert len(set(fills)) == 4
