"""Where the firmware's bytes go."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sevplug.core.config import BootImages, Image
from sevplug.core.errors import ConfigError
from sevplug.core.memory import GuestMemory
from sevplug.core.placement import FLASH_LIMIT, place_firmware

FOUR_GIB = 1 << 32


@pytest.fixture
def memory() -> Iterator[GuestMemory]:
    space = GuestMemory(1 << 20)
    yield space
    space.close()


def test_without_firmware_nothing_is_placed(memory: GuestMemory) -> None:
    assert place_firmware(memory, BootImages()) == []
    assert len(memory.ranges) == 1


def test_firmware_ends_at_four_gib_and_is_what_is_launched(memory: GuestMemory) -> None:
    data = b"\x5a" * 0x3000
    (region,) = place_firmware(memory, BootImages(firmware=Image(data, "a.fd")))
    assert (region.name, region.gpa, region.data) == ("firmware", FOUR_GIB - 0x3000, data)
    assert memory.read(FOUR_GIB - 0x3000, 0x3000) == data


def test_the_variable_store_lies_right_below_and_is_not_launched(memory: GuestMemory) -> None:
    boot = BootImages(firmware=Image(bytes(0x2000), "code.fd"), variables=Image(b"\x11" * 0x1000, "vars.fd"))
    regions = place_firmware(memory, boot)
    assert [region.name for region in regions] == ["firmware"]
    assert memory.read(FOUR_GIB - 0x3000, 0x1001) == b"\x11" * 0x1000 + b"\0"


@pytest.mark.parametrize("size", [1, 4095, 4097, 65535])
def test_firmware_that_is_not_whole_pages_is_refused(memory: GuestMemory, size: int) -> None:
    with pytest.raises(ConfigError, match=rf"^firmware odd\.fd: {size} bytes, expected a multiple of 4096$"):
        place_firmware(memory, BootImages(firmware=Image(bytes(size), "odd.fd")))


def test_a_variable_store_that_is_not_whole_pages_is_refused_before_anything_is_placed(memory: GuestMemory) -> None:
    boot = BootImages(firmware=Image(bytes(4096), "code.fd"), variables=Image(bytes(100), "vars.fd"))
    with pytest.raises(ConfigError, match=r"^variable store vars\.fd: 100 bytes, expected a multiple of 4096$"):
        place_firmware(memory, boot)
    assert len(memory.ranges) == 1


def test_flash_has_a_limit_over_both_banks(memory: GuestMemory) -> None:
    boot = BootImages(firmware=Image(bytes(FLASH_LIMIT), "code.fd"), variables=Image(bytes(4096), "vars.fd"))
    with pytest.raises(
        ConfigError, match=rf"^firmware code\.fd: {FLASH_LIMIT + 4096} bytes of flash, expected at most"
    ):
        place_firmware(memory, boot)
