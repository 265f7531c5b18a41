"""Every block of docs/howto/test-with-pytest.md does what the page says."""

from __future__ import annotations

import re
import shlex

import attrs
import pytest
from images import ROOT
from inner_runs import InnerRun
from parts import find_image

pytestmark = pytest.mark.slow

PAGE = ROOT / "docs" / "howto" / "test-with-pytest.md"


@attrs.frozen
class Page:
    """``files``: Python by file name.  ``runs``: (command, what it prints) in the page's order."""

    files: dict[str, str]
    runs: list[tuple[str, str]]


def blocks() -> list[tuple[str, str]]:
    """(language, text) of each fenced block."""
    return re.findall(r"^```(\w+)\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)


def read_page() -> Page:
    """The page's blocks by their uses; a block of any other kind fails the test."""
    files: dict[str, str] = {}
    told: list[tuple[str, str]] = []
    for language, text in blocks():
        if language == "python":
            named = re.match(r"# (\w+\.py)\n", text)
            assert named, text
            files[named[1]] = text
        else:
            assert language in ("sh", "text")
            told.append((language, text))
    assert [language for language, _text in told] == ["sh", "text"] * (len(told) // 2)
    return Page(files, [(told[number][1].strip(), told[number + 1][1]) for number in range(0, len(told), 2)])


@pytest.fixture
def page(pytester: pytest.Pytester) -> Page:
    """The page, with its files laid out in the inner run's folder."""
    found = read_page()
    for name, source in found.files.items():
        (pytester.path / name).write_text(source)
    return found


def plain(text: str) -> str:
    """``text`` without what differs from run to run."""
    return re.sub(r"\d+\.\d+s", "0.4s", text)


def test_commands_print_what_the_page_shows(inner_run: InnerRun, page: Page) -> None:
    assert len(page.runs) == 2
    for command, shown in page.runs:
        program, *arguments = shlex.split(command.removesuffix(" || true"))
        assert program == "pytest"
        printed = plain(inner_run(None, *arguments)[1]) + "\n"
        assert shown in printed, printed


def test_every_other_file_of_the_page_passes(inner_run: InnerRun, page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SEVPLUG_GUESTS", raising=False)
    monkeypatch.delenv("SEVPLUG_REQUIRE_REAL", raising=False)
    run = {word for command, _shown in page.runs for word in shlex.split(command.removesuffix(" || true"))}
    others = sorted(name for name in page.files if name.startswith("test_") and name not in run)
    assert others == ["test_broker.py", "test_firmware.py", "test_plugin.py"]
    outcomes, text = inner_run(None, "-rs", *others)
    assert outcomes == {"passed": 3, "skipped": 1}  # the one with real firmware
    assert "OVMF.amdsev.fd is missing" in text


def test_the_client_is_as_short_as_the_page_says() -> None:
    code = [line for line in read_page().files["attest.py"].splitlines() if line.strip()]
    assert len(code) <= 65


@pytest.mark.real
def test_real_firmware_does_what_the_page_says(inner_run: InnerRun, page: Page) -> None:
    firmware = find_image("OVMF.amdsev.fd")
    assert page.files
    assert inner_run(None, f"--sevplug-guests={firmware.parent}", "test_firmware.py")[0] == {"passed": 2}
