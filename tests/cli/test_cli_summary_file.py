"""The summary's file: whole or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from sevplug.cli.summary_file import SummaryFile
from sevplug.core.errors import ConfigError


def test_the_document_replaces_what_was_there(tmp_path: Path):
    path = tmp_path / "s.json"
    path.write_text("old")
    with SummaryFile(str(path)) as file:
        assert path.read_text() == "old"
        file.write({"result": "shutdown"})
    assert json.loads(path.read_text()) == {"result": "shutdown"}
    assert os.listdir(tmp_path) == ["s.json"]


def test_a_run_that_fails_leaves_nothing_behind(tmp_path: Path):
    path = tmp_path / "s.json"
    with pytest.raises(ZeroDivisionError), SummaryFile(str(path)):
        raise ZeroDivisionError
    assert os.listdir(tmp_path) == []


def test_the_file_gets_the_permissions_of_any_new_file(tmp_path: Path):
    (tmp_path / "other").touch()
    with SummaryFile(str(tmp_path / "s.json")) as file:
        file.write({})
    assert (tmp_path / "s.json").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_a_symbolic_link_stays_one(tmp_path: Path):
    (tmp_path / "link").symlink_to("real")
    with SummaryFile(str(tmp_path / "link")) as file:
        file.write({})
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "{}\n"


def test_a_device_is_written_to_and_not_replaced():
    with SummaryFile("/dev/null") as file:
        file.write({})
    assert Path("/dev/null").is_char_device()


@pytest.mark.parametrize(("name", "reason"), [("missing/s.json", "No such file or directory"), (".", "Is a directory")])
def test_what_cannot_be_written_is_refused_before_the_run(tmp_path: Path, name: str, reason: str):
    path = f"{tmp_path}/{name}"
    with pytest.raises(ConfigError) as caught:
        SummaryFile(path)
    assert str(caught.value) == f"--summary {path}: {reason}, expected a writable file"
