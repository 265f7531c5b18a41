"""The firmware configuration device (QEMU's docs/specs/fw_cfg.rst and hw/nvram/fw_cfg.c).

Selector at 0x510, data at 0x511, DMA at 0x514..0x51B (big-endian).  DMA reads and writes guest memory as the world
outside the CPU sees it.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import attrs

from sevplug.board import fw_cfg_keys as key
from sevplug.board.linux_items import linux_items
from sevplug.core.bus import Device
from sevplug.core.errors import ConfigError
from sevplug.core.images import Image, ImagePart
from sevplug.core.memory import HIGH_RAM_BASE, GuestMemory

if TYPE_CHECKING:
    from sevplug.core.machine import Machine

SELECTOR, DATA, DMA = 0x510, 0x511, 0x514
_DMA_SIGNATURE = b"QEMU CFG"
_ID_TRADITIONAL, _ID_DMA = 1, 2
_ERROR, _READ, _SKIP, _SELECT, _WRITE = 1, 2, 4, 8, 16
_NAME_SIZE = 56
_E820_RAM = 1
# Sleep states: bit 7 says supported, the rest is the SLP_TYP value; S5 is 0, and neither S3 nor S4 is there.
_SYSTEM_STATES = bytes([0x80, 0x00, 0x00, 0x01, 0x02, 0x80])


@attrs.frozen(eq=False)
class _Item:
    data: bytes | bytearray | ImagePart = attrs.field(repr=lambda data: f"<{len(data)} bytes>")
    writable: bool = False


_NO_ITEM = _Item(b"")


class FwCfg(Device):
    """The device; ``machine.private["fw_cfg"]``.  `add_item` and `add_file` extend it until the guest runs."""

    name = "fw_cfg"

    def __init__(self) -> None:
        self._items: dict[int, _Item] = {}
        self._files: dict[str, int] = {}
        # The selected item's bytes; None until somebody wants those of an image.
        self._data: bytes | bytearray | memoryview | None = b""
        # Items that are parts of images, until they have been read to their ends.
        self._unread: dict[int, ImagePart] = {}
        self._offset = 0
        self._item = _NO_ITEM
        self._selected = 0
        self._dma_high = 0

    def attach(self, machine: Machine) -> None:
        self._memory: GuestMemory = machine.memory
        # A guest that starts over reads its images once more.
        self._let_go = not machine.config.reboot
        one = (1).to_bytes(2, "little")
        self.add_item(key.SIGNATURE, b"QEMU")
        self.add_item(key.ID, (_ID_TRADITIONAL | _ID_DMA).to_bytes(4, "little"))
        self.add_item(key.UUID, bytes(16))
        self.add_item(key.RAM_SIZE, machine.memory.ram_size.to_bytes(8, "little"))
        self.add_item(key.NOGRAPHIC, bytes(2))
        self.add_item(key.NB_CPUS, one)
        self.add_item(key.MAX_CPUS, one)
        self.add_item(key.BOOT_MENU, bytes(2))
        self.add_item(key.IRQ0_OVERRIDE, (1).to_bytes(4, "little"))
        # A kernel without firmware has nobody who would ask for it here.
        if not machine.config.boot.direct:
            for number, data in linux_items(machine.config.boot, machine.memory.low_ram_size).items():
                self.add_item(number, data)
        self.add_file("etc/e820", _e820(machine.memory))
        self.add_file("etc/system-states", _SYSTEM_STATES)
        bus = machine.bus
        bus.claim_ports(SELECTOR, 1, self._read_selector, self._write_selector, self.name)
        bus.claim_ports(DATA, 1, self._read_data, None, self.name)
        bus.claim_ports(DMA, 8, self._read_dma, self._write_dma, self.name)
        machine.private["fw_cfg"] = self

    def reset(self) -> None:
        self._select(0)
        self._dma_high = 0

    def save(self) -> dict[str, Any]:
        writable = [[number, bytes(data)] for number, data in sorted(self._writable().items())]
        # An item that was replaced since it was selected is read on as it was.
        now = self._items.get(self._selected, _NO_ITEM)
        return {
            "writable": writable,
            "selected": self._selected,
            "offset": self._offset,
            "dma_high": self._dma_high,
            "replaced": None if now is self._item else bytes(self._selected_bytes()),
            "unread": sorted(self._unread),
        }

    def load(self, state: Mapping[str, Any]) -> None:
        for number, data in state["writable"]:
            held = self._writable().get(number)
            if held is None or len(held) != len(data):
                raise ValueError(f"item {number:#x} cannot be written, or has another size")
            held[:] = data
        parts = {number: item.data for number, item in self._items.items() if isinstance(item.data, ImagePart)}
        self._unread = {int(number): parts[int(number)] for number in state["unread"]}
        for part in parts.values():
            self._spare(part.image)
        self._select(int(state["selected"]))
        if state["replaced"] is not None:
            self._item = _Item(bytes(state["replaced"]))
            self._data = None
        self._offset, self._dma_high = int(state["offset"]), int(state["dma_high"])

    def add_item(self, number: int, data: bytes | ImagePart, *, writable: bool = False) -> None:
        """Put ``data`` behind selector ``number`` (0..0x3FFF, or with `ARCH_LOCAL`), in place of what was there.

        An image whose parts have all been read is let go, unless the guest may start over.
        """
        number &= ~key.WRITE_CHANNEL
        self._unread.pop(number, None)
        if isinstance(data, ImagePart):
            assert not writable
            self._items[number] = _Item(data)
            self._unread[number] = data
        else:
            self._items[number] = _Item(bytearray(data) if writable else bytes(data), writable)

    def add_file(self, name: str, data: bytes, *, writable: bool = False) -> None:
        """Put ``data`` into the directory as ``name`` (up to 55 bytes), in place of a file of that name.

        `ConfigError` for a name that is empty or too long.
        """
        if not name or len(name.encode()) >= _NAME_SIZE:
            raise ConfigError(f"fw_cfg file name {name!r}: expected 1 to {_NAME_SIZE - 1} bytes")
        number = self._files.setdefault(name, key.FILE_FIRST + len(self._files))
        self.add_item(number, data, writable=writable)
        entries = [
            struct.pack(f">IHH{_NAME_SIZE}s", len(self._items[select].data), select, 0, entry.encode())
            for entry, select in sorted(self._files.items())
        ]
        self.add_item(key.FILE_DIR, len(entries).to_bytes(4, "big") + b"".join(entries))

    def item(self, number: int) -> bytes | None:
        """The bytes behind selector ``number`` now, or None."""
        found = self.contents(number)
        return found.data if isinstance(found, ImagePart) else found

    def contents(self, number: int) -> bytes | ImagePart | None:
        """The same, but the part of an image as it was given, whose bytes nobody has to look at."""
        found = self._items.get(number)
        if found is None:
            return None
        return found.data if isinstance(found.data, ImagePart) else bytes(found.data)

    def file(self, name: str) -> bytes | None:
        """The bytes of file ``name`` now, or None."""
        return self.item(self._files[name]) if name in self._files else None

    # -- the traditional interface -----------------------------------------------------------------------------------

    def _select(self, number: int) -> None:
        self._leave()
        self._item = self._items.get(number & ~key.WRITE_CHANNEL, _NO_ITEM)
        self._selected = number & ~key.WRITE_CHANNEL
        data = self._item.data
        self._data = None if isinstance(data, ImagePart) else data
        self._offset = 0

    def _selected_bytes(self) -> bytes | bytearray | memoryview:
        if self._data is None:
            data = self._item.data
            self._data = data.view if isinstance(data, ImagePart) else data
        return self._data

    def _leave(self) -> None:
        """Nobody reads on in the selected item; its image is let go with the last part that is wanted."""
        part = self._item.data
        if isinstance(part, ImagePart):
            if self._offset >= len(part) and self._unread.get(self._selected) is part:
                del self._unread[self._selected]
            self._data = None
            self._spare(part.image)

    def _writable(self) -> dict[int, bytearray]:
        return {number: item.data for number, item in self._items.items() if isinstance(item.data, bytearray)}

    def _spare(self, image: Image) -> None:
        if self._let_go and all(part.image is not image for part in self._unread.values()):
            image.let_go()

    def _read_selector(self, _port: int, size: int) -> int:
        return 0 if size <= 2 else 0xFFFF_FFFF

    def _write_selector(self, _port: int, size: int, value: int) -> None:
        if size == 2:
            self._select(value)

    def _read_data(self, _port: int, size: int) -> int:
        offset, end = self._offset, len(self._item.data)
        if offset >= end:
            return 0
        data = self._selected_bytes()
        found = data[offset] if size == 1 else int.from_bytes(data[offset : offset + size], "little")
        self._offset = offset + size
        if self._offset >= end:
            self._leave()
        return found

    # -- DMA ---------------------------------------------------------------------------------------------------------

    def _read_dma(self, port: int, size: int) -> int:
        offset = port - DMA
        return int.from_bytes(_DMA_SIGNATURE[offset : offset + size], "little")

    def _write_dma(self, port: int, size: int, value: int) -> None:
        if size != 4:
            return
        half = int.from_bytes(value.to_bytes(4, "little"), "big")
        if port == DMA:
            self._dma_high = half
        elif port == DMA + 4:
            address, self._dma_high = self._dma_high << 32 | half, 0
            self._transfer(address)

    def _transfer(self, descriptor: int) -> None:
        """Carry out the FWCfgDmaAccess at guest-physical ``descriptor``: u32 control, u32 length, u64 address."""
        memory = self._memory
        if not memory.holds(descriptor, 16):
            memory.write(descriptor, _ERROR.to_bytes(4, "big"))
            return
        control, length, address = struct.unpack(">IIQ", memory.read(descriptor, 16))
        if control & _SELECT:
            self._select(control >> 16)
        good = True
        if control & _READ:
            good = self._dma_read(address, length)
        elif control & _WRITE:
            good = self._dma_write(address, length)
        elif control & _SKIP:
            self._offset = min(self._offset + length, len(self._item.data))
        memory.write(descriptor, (0 if good else _ERROR).to_bytes(4, "big"))

    def _dma_read(self, address: int, length: int) -> bool:
        memory = self._memory
        if not memory.holds(address, length):
            return False
        count = min(length, max(0, len(self._item.data) - self._offset))
        if count:
            memory.write(address, memoryview(self._selected_bytes())[self._offset : self._offset + count])
            self._offset += count
            if self._offset >= len(self._item.data):
                self._leave()
        if count < length:
            memory.write(address + count, bytes(length - count))
        return True

    def _dma_write(self, address: int, length: int) -> bool:
        item = self._item
        end = self._offset + length
        if not item.writable or end > len(item.data) or not self._memory.holds(address, length):
            return False
        assert isinstance(item.data, bytearray)
        item.data[self._offset : end] = self._memory.read(address, length)
        self._offset = end
        return True


def _e820(memory: GuestMemory) -> bytes:
    """The memory map: entries of u64 address, u64 length, u32 type, little-endian."""
    ranges = [(0, memory.low_ram_size), (HIGH_RAM_BASE, memory.high_ram_size)]
    return b"".join(struct.pack("<QQI", base, size, _E820_RAM) for base, size in ranges if size)
