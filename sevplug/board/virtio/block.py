"""The virtio block device (VIRTIO 1.2, section 5.2) over a `Disk`, as a function of the PCI bus."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sevplug.board.disk import SECTOR, Disk
from sevplug.board.local_apic import LocalApic
from sevplug.board.msi import to_local_apic
from sevplug.board.pci import PciHost
from sevplug.board.virtio.device import VirtioDevice
from sevplug.board.virtio.pci import VirtioPci
from sevplug.board.virtio.queue import Buffer, Chain, QueueError, size_of, split
from sevplug.core.bus import Device
from sevplug.core.memory import GuestMemory

if TYPE_CHECKING:
    from sevplug.core.machine import Machine

DEVICE_TYPE = 2
F_SEG_MAX, F_READ_ONLY, F_BLOCK_SIZE, F_FLUSH = 1 << 2, 1 << 5, 1 << 6, 1 << 9
IN, OUT, FLUSH, GET_ID = 0, 1, 4, 8
OK, IO_ERROR, UNSUPPORTED = 0, 1, 2
QUEUE_SIZE = 256
SERIAL = "sevplug-disk"
_HEADER = struct.Struct("<IIQ")
_ID_SIZE = 20
# SCSI mass storage, as QEMU has it.
_PCI_CLASS = 0x010000
_PIECE = 1 << 20


class BlockBackend:
    """Serves block requests from ``disk``."""

    device_type = DEVICE_TYPE
    queue_sizes = (QUEUE_SIZE,)

    def __init__(self, disk: Disk, serial: str = SERIAL) -> None:
        """``serial``: what GET_ID answers, up to 20 bytes."""
        self.name = f"disk {disk.path}"
        self.features = F_SEG_MAX | F_BLOCK_SIZE | F_FLUSH | (F_READ_ONLY if disk.read_only else 0)
        # capacity in sectors, size_max, seg_max (a header and a status come with each request), geometry, blk_size
        self.config = struct.pack("<QIIII", disk.size // SECTOR, 0, QUEUE_SIZE - 2, 0, SECTOR)
        self._disk = disk
        self._identity = serial.encode().ljust(_ID_SIZE, b"\0")

    def serve(self, memory: GuestMemory, chain: Chain) -> int:
        """See `Backend.serve`."""
        room = size_of(chain.writable) - 1
        if size_of(chain.readable) < _HEADER.size:
            raise QueueError(f"a request without its header of {_HEADER.size} bytes")
        if room < 0:
            raise QueueError("a request without a byte for its status")
        header, outgoing = split(chain.readable, _HEADER.size)
        incoming, status_at = split(chain.writable, room)
        kind, _reserved, sector = _HEADER.unpack(b"".join(memory.read(piece.gpa, piece.size) for piece in header))
        try:
            status, answered = self._carry_out(memory, kind, sector, outgoing, incoming)
        except OSError:
            status, answered = IO_ERROR, 0
        memory.write(status_at[0].gpa, bytes([status]))
        # What was written is told from the chain's start on; the status is its last byte.
        return answered + 1 if answered == room else answered

    def _carry_out(
        self,
        memory: GuestMemory,
        kind: int,
        sector: int,
        outgoing: tuple[Buffer, ...],
        incoming: tuple[Buffer, ...],
    ) -> tuple[int, int]:
        """(status, bytes of ``incoming`` that were written); OSError when the host cannot read the image."""
        if kind == IN:
            if outgoing or not self._inside(sector, size_of(incoming)):
                return IO_ERROR, 0
            return OK, self._read(memory, sector * SECTOR, incoming)
        if kind == OUT:
            if incoming or self._disk.read_only or not self._inside(sector, size_of(outgoing)):
                return IO_ERROR, 0
            self._write(memory, sector * SECTOR, outgoing)
            return OK, 0
        if kind == FLUSH:
            # What was written is in the overlay already, and goes nowhere else.
            return OK, 0
        if kind == GET_ID:
            return OK, _scatter(memory, incoming, self._identity)
        return UNSUPPORTED, 0

    def _inside(self, sector: int, size: int) -> bool:
        return size % SECTOR == 0 and sector * SECTOR + size <= self._disk.size

    def _read(self, memory: GuestMemory, offset: int, buffers: tuple[Buffer, ...]) -> int:
        start = offset
        for buffer in buffers:
            for done in range(0, buffer.size, _PIECE):
                data = self._disk.read(offset, min(_PIECE, buffer.size - done))
                memory.write(buffer.gpa + done, data)
                offset += len(data)
        return offset - start

    def _write(self, memory: GuestMemory, offset: int, buffers: tuple[Buffer, ...]) -> None:
        for buffer in buffers:
            for done in range(0, buffer.size, _PIECE):
                data = memory.read(buffer.gpa + done, min(_PIECE, buffer.size - done))
                self._disk.write(offset, data)
                offset += len(data)


def _scatter(memory: GuestMemory, buffers: tuple[Buffer, ...], data: bytes) -> int:
    done = 0
    for buffer in split(buffers, len(data))[0]:
        memory.write(buffer.gpa, data[done : done + buffer.size])
        done += buffer.size
    return done


class BlockDevice(Device):
    """A disk on the PCI bus, in the lowest free slot; it closes ``disk`` in the end."""

    name = "virtio-blk"

    def __init__(self, disk: Disk, serial: str = SERIAL) -> None:
        self.disk = disk
        self.backend = BlockBackend(disk, serial)

    def attach(self, machine: Machine) -> None:
        pci, apic = machine.private["pci"], machine.private["local_apic"]
        assert isinstance(pci, PciHost)
        assert isinstance(apic, LocalApic)
        device = VirtioDevice(self.backend, machine.memory)
        # The PCI host resets its functions.
        self.function = VirtioPci(device, _PCI_CLASS, to_local_apic(apic))
        device.on_broken = machine.warn
        pci.add_function(pci.free_slot(), 0, self.function)

    def save(self) -> dict[str, Any]:
        return self.disk.save()

    def load(self, state: Mapping[str, Any]) -> None:
        self.disk.load(state)

    def close(self) -> None:
        self.disk.close()
