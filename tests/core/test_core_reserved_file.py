"""A file whose place is reserved before a run and that is written after it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sevplug.core.errors import ConfigError
from sevplug.core.reserved_file import ReservedFile


def test_a_name_as_long_as_the_file_system_takes(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 255)
    with ReservedFile("--option", str(path)) as file:
        file.write_text("text")
    assert path.read_text() == "text"


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("", "Is a directory, expected a writable file"),
        ("missing/f", "No such file or directory, expected a writable file"),
        ("file/f", "Not a directory, expected a writable file"),
        ("/proc/nothing", "No such file or directory, expected a writable file"),
    ],
)
def test_a_path_that_cannot_be_written_is_refused_at_once(
    path: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        ReservedFile("--option", path)
    assert str(caught.value) == f"--option {path}: {reason}"
    assert os.listdir(tmp_path) == ["file"]


def test_a_path_with_a_nul_is_no_file_name() -> None:
    with pytest.raises(ConfigError, match=r"^--option 'a\\x00b': not a file name$"):
        ReservedFile("--option", "a\0b")


def test_a_file_that_its_owner_made_read_only_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "f"
    path.touch()
    # root may write anything
    monkeypatch.setattr("os.access", lambda _path, mode: mode != os.W_OK)
    with pytest.raises(ConfigError) as caught:
        ReservedFile("--option", str(path))
    assert str(caught.value) == f"--option {path}: Permission denied, expected a writable file"


def test_what_fails_at_the_end_keeps_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "f"
    path.write_text("old")

    def full(*_arguments: object, **_more: object) -> None:
        raise OSError(28, "No space left on device")

    with ReservedFile("--option", str(path)) as file:
        monkeypatch.setattr(Path, "write_text", full)
        with pytest.raises(ConfigError, match=r"f: No space left on device, expected a writable file$"):
            file.write_text("new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["f"]
