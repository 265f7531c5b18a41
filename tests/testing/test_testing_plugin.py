"""The pytest plug-in itself: found by its entry point, free of charge, in nobody's way; and its options."""

from __future__ import annotations

from pathlib import Path

import pytest
from inner_runs import QUICKLY, InnerRun

pytestmark = pytest.mark.slow

FINDS = """
    def test_finds(sevplug_image):
        print(sevplug_image("OVMF.amdsev.fd"))
"""
FIXTURES = (
    "sevplug_embedded_guest",
    "sevplug_image",
    "sevplug_machine",
    "sevplug_owner",
    "sevplug_paused_machine",
    "sevplug_platform",
)


def test_a_run_that_uses_no_fixture_imports_three_modules_of_sevplug(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import sys

        def test_imported():
            assert {name for name in sys.modules if name.split(".")[0] == "sevplug"} == {
                "sevplug", "sevplug.testing", "sevplug.testing.plugin"
            }
            assert not {"attrs", "attr", "unicorn", "structlog", "click", "Crypto"} & set(sys.modules)
        """
    )
    result = pytester.runpytest_subprocess("--strict-markers", "--strict-config", "-W", "error", *QUICKLY, timeout=50)
    result.assert_outcomes(passed=1)


def test_every_fixture_is_listed_with_what_it_is_for(inner_run: InnerRun) -> None:
    _outcomes, text = inner_run("def test_nothing(): pass", "--fixtures")
    for name in FIXTURES:
        line = next(line for line in text.splitlines() if line.startswith(name))
        assert "plugin.py" in line
    assert "_sevplug_folder" not in text


def test_without_the_plug_in_there_are_no_fixtures_and_no_options(inner_run: InnerRun) -> None:
    outcomes, text = inner_run("def test_wants(sevplug_machine): pass", "-p", "no:sevplug")
    assert outcomes == {"errors": 1}
    assert "fixture 'sevplug_machine' not found" in text


def test_it_adds_no_marker_and_no_option_without_its_name(inner_run: InnerRun) -> None:
    assert "sevplug" not in inner_run("", "--markers")[1]
    text = inner_run("", "--help")[1]
    group = text[text.index("guests under emulated AMD SEV") :]
    options = [line.split()[0] for line in group[: group.index("\n\n")].splitlines() if line.strip().startswith("-")]
    assert options == ["--sevplug-guests=DIR"]


def test_two_workers_have_fixtures_and_options(pytester: pytest.Pytester, tmp_path: Path) -> None:
    (tmp_path / "some.fd").write_bytes(b"image")
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.parametrize("number", range(2))
        def test_image(sevplug_image, sevplug_embedded_guest, number):
            assert sevplug_image("some.fd").read_bytes() == b"image"
            assert sevplug_embedded_guest.path.is_file()
        """
    )
    command = ("-p", "no:cacheprovider", "-p", "no:hypothesispytest", "-n", "2", f"--sevplug-guests={tmp_path}")
    result = pytester.runpytest_subprocess(*command, timeout=100)
    result.assert_outcomes(passed=2)


# -- images ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """One folder for each way of naming it, none of them named, the image in none."""
    monkeypatch.delenv("SEVPLUG_GUESTS", raising=False)
    monkeypatch.delenv("SEVPLUG_REQUIRE_REAL", raising=False)
    found = {way: tmp_path / way for way in ("option", "environment", "ini")}
    for folder in found.values():
        folder.mkdir()
    return found


def test_the_command_line_goes_before_the_environment_and_that_before_the_ini_file(
    inner_run: InnerRun, pytester: pytest.Pytester, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in folders.values():
        (folder / "OVMF.amdsev.fd").write_bytes(b"image")
    pytester.makeini(f"[pytest]\nsevplug_guests = {folders['ini']}\n")
    assert f"{folders['ini']}/OVMF.amdsev.fd" in inner_run(FINDS, "-s")[1]
    monkeypatch.setenv("SEVPLUG_GUESTS", str(folders["environment"]))
    assert f"{folders['environment']}/OVMF.amdsev.fd" in inner_run(FINDS, "-s")[1]
    assert (
        f"{folders['option']}/OVMF.amdsev.fd" in inner_run(FINDS, "-s", "--sevplug-guests", str(folders["option"]))[1]
    )
    (folders["option"] / "OVMF.amdsev.fd").unlink()  # then the next is asked
    assert (
        f"{folders['environment']}/OVMF.amdsev.fd"
        in inner_run(FINDS, "-s", "--sevplug-guests", str(folders["option"]))[1]
    )


def test_a_missing_image_skips_and_says_how_to_get_it(
    inner_run: InnerRun, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    how = "name a folder that holds it with --sevplug-guests, SEVPLUG_GUESTS or the ini option sevplug_guests"
    debian = "Debian's package ovmf-amdsev has it as /usr/share/ovmf/OVMF.amdsev.fd"
    outcomes, text = inner_run(FINDS, "-rs")
    assert outcomes == {"skipped": 1}
    assert f"OVMF.amdsev.fd is missing (no folder of images is named): {how}; {debian}" in text
    monkeypatch.setenv("SEVPLUG_GUESTS", str(folders["environment"]))
    _outcomes, text = inner_run(FINDS.replace("OVMF.amdsev", "mine"), "-rs", "--sevplug-guests", "/nowhere")
    assert (
        f"mine.fd is missing (not in /nowhere, which is no folder, {folders['environment']}): {how}; "
        "scripts/fetch-guests of sevplug's sources" in text
    )


def test_where_everything_is_meant_to_be_there_a_missing_image_fails(
    inner_run: InnerRun, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert folders
    monkeypatch.setenv("SEVPLUG_REQUIRE_REAL", "1")
    outcomes, text = inner_run(FINDS)
    assert outcomes == {"failed": 1}
    assert "OVMF.amdsev.fd is missing" in text
