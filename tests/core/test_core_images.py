"""Images that are let go while the guest runs, and what is given to whoever asks for them again."""

from __future__ import annotations

import hashlib
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from machines import machine_with

from sevplug.core.config import BootImages, Image
from sevplug.core.errors import ConfigError
from sevplug.core.images import ImagePart
from sevplug.core.memory import PAGE_SIZE

CONTENTS = bytes(range(1, 251)) * 4


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "guest.fd"
    path.write_bytes(CONTENTS)
    return path


def let_go(path: Path) -> Image:
    image = Image.load(path, "firmware")
    image.let_go()
    return image


def test_an_image_that_was_let_go_is_read_again(path: Path) -> None:
    image = let_go(path)
    assert image.data == CONTENTS
    image.let_go()
    assert (image.data, image.size, image.sha256) == (CONTENTS, 1000, hashlib.sha256(CONTENTS).hexdigest())


def test_an_image_that_was_let_go_takes_no_memory(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(bytes(4 << 20))
    tracemalloc.start()
    try:
        image = Image.load(tmp_path / "large", "kernel", limit=8 << 20)
        held, _peak = tracemalloc.get_traced_memory()
        image.let_go()
        left, _peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held > 4 << 20
    assert left < 1 << 20


def replace(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(b"new")
    other.replace(path)


@pytest.mark.parametrize("change", [replace, Path.unlink], ids=["another of its name", "none"])
def test_what_has_the_files_name_now_does_not_matter(path: Path, change: Callable[[Path], object]) -> None:
    image = let_go(path)
    change(path)
    assert image.data == CONTENTS


@pytest.mark.parametrize("contents", [b"\0" + CONTENTS[1:], CONTENTS[:-1], CONTENTS + b"\0", b""])
def test_a_file_that_was_written_to_is_refused(path: Path, contents: bytes) -> None:
    image = let_go(path)
    path.write_bytes(contents)
    with pytest.raises(ConfigError) as refused:
        _ = image.data
    assert str(refused.value) == (
        f"firmware {path}: the file was changed while the guest ran, which asks for it again: expected the 1000 bytes "
        f"with SHA-256 {hashlib.sha256(CONTENTS).hexdigest()}"
    )


def test_what_a_pipe_said_is_kept() -> None:
    reading, writing = os.pipe()
    os.write(writing, CONTENTS)
    os.close(writing)
    image = let_go(Path(f"/dev/fd/{reading}"))
    os.close(reading)
    assert image.data == CONTENTS


def test_bytes_without_a_file_are_kept() -> None:
    image = Image(CONTENTS, "(the test)")
    image.let_go()
    assert image.data == CONTENTS


def test_a_part_is_cut_from_its_image_and_padded(path: Path) -> None:
    image = let_go(path)
    part = ImagePart(image, 10, 20, padding=12)
    assert (len(part), bytes(part.view), part.data) == (32, CONTENTS[10:30], CONTENTS[10:30] + bytes(12))
    assert ImagePart(image, 0, image.size).data is image.data


# -- in a machine ------------------------------------------------------------------------------------------------------

FIRMWARE, OTHER = b"\xf4" * PAGE_SIZE, b"\x90" * PAGE_SIZE
AT = (1 << 32) - PAGE_SIZE


def test_firmware_that_is_not_what_was_measured_is_not_placed_at_a_reset(path: Path) -> None:
    path.write_bytes(FIRMWARE)
    boot = BootImages(firmware=Image.load(path, "firmware"))
    with machine_with(None, boot=boot) as (machine, _board):
        machine.start_launch()
        machine.resume()
        machine.memory.write(AT, OTHER)
        machine.reset()
        assert machine.memory.read(AT, PAGE_SIZE) == FIRMWARE
        machine.pause()
        machine.resume()
        path.write_bytes(OTHER)
        with pytest.raises(ConfigError, match=r"firmware .*: the file was changed while the guest ran"):
            machine.reset()
        assert machine.memory.read(AT, PAGE_SIZE) == FIRMWARE


def test_a_guest_that_may_start_over_does_not_need_the_file(path: Path) -> None:
    path.write_bytes(FIRMWARE)
    boot = BootImages(firmware=Image.load(path, "firmware"))
    with machine_with(None, boot=boot, reboot=True) as (machine, _board):
        machine.start_launch()
        machine.resume()
        path.write_bytes(OTHER)
        machine.memory.write(AT, OTHER)
        machine.reset()
        assert machine.memory.read(AT, PAGE_SIZE) == FIRMWARE
