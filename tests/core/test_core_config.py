"""The configuration's values, and the one file reader among them."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import attrs
import pytest

from sevplug.core.config import Image, MachineConfig
from sevplug.core.errors import ConfigError


def refusal(path: Path, limit: int | None = None) -> str:
    with pytest.raises(ConfigError) as refused:
        Image.load(path, "firmware", limit=limit)
    return str(refused.value)


def test_an_image_holds_the_whole_file_and_its_path(tmp_path: Path) -> None:
    path = tmp_path / "guest.fd"
    path.write_bytes(b"\0\1\2")
    image = Image.load(path, "firmware", limit=3)
    assert (image.data, image.path) == (b"\0\1\2", str(path))


def test_a_path_may_be_a_string(tmp_path: Path) -> None:
    (tmp_path / "guest.fd").write_bytes(b"x")
    assert Image.load(f"{tmp_path}/guest.fd", "firmware").data == b"x"


def test_a_missing_file_is_named_with_its_role(tmp_path: Path) -> None:
    path = tmp_path / "absent.fd"
    assert refusal(path) == f"firmware {path}: No such file or directory"


def test_a_folder_is_no_image(tmp_path: Path) -> None:
    assert refusal(tmp_path) == f"firmware {tmp_path}: Is a directory"


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "empty.fd"
    path.touch()
    assert refusal(path) == f"firmware {path}: the file is empty"


def test_a_file_past_the_limit_is_refused_with_both_sizes(tmp_path: Path) -> None:
    path = tmp_path / "large.fd"
    path.write_bytes(bytes(17))
    assert refusal(path, limit=16) == f"firmware {path}: 17 bytes, expected at most 16"


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "closed.fd"
    path.write_bytes(b"x")

    def denied(_self: Path, _mode: str) -> BinaryIO:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)
    assert refusal(path) == f"firmware {path}: Permission denied"


def test_a_file_name_no_system_can_have_is_refused() -> None:
    assert refusal(Path("bad\0name")) == r"firmware 'bad\x00name': not a file name"


def test_a_device_that_never_ends_is_refused() -> None:
    assert refusal(Path("/dev/zero"), limit=4096) == "firmware /dev/zero: more than 4096 bytes, expected at most 4096"


def test_the_repr_of_an_image_shows_its_size_only() -> None:
    assert repr(Image(b"abcdef", "a")) == "Image(data=<6 bytes>, path='a')"


def test_a_clock_is_virtual_or_the_hosts() -> None:
    assert MachineConfig().clock == "virtual"
    assert MachineConfig(clock="host").clock == "host"
    with pytest.raises(ValueError, match="'clock' must be in"):
        MachineConfig(clock="sundial")


def test_a_configuration_cannot_change_under_a_machine() -> None:
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        MachineConfig().memory = 1  # type: ignore[misc]
