"""Virtio over PCI, modern only (VIRTIO 1.2, section 4.1): capabilities, configuration structures, interrupts.

The layout of the BARs is that of QEMU's hw/virtio/virtio-pci.c; ours are 32-bit ones.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

from sevplug.board import msi
from sevplug.board.pci_function import COMMAND, STATUS, BarKind, PciBar, PciFunction
from sevplug.board.virtio.device import VirtioDevice
from sevplug.core.snapshot.fields import load_fields, save_fields

VENDOR, FIRST_DEVICE = 0x1AF4, 0x1040
REVISION = 1
MSIX_BAR, REGISTER_BAR = 1, 4
COMMON, ISR, DEVICE, NOTIFY = 0x0000, 0x1000, 0x2000, 0x3000
_REGION = 0x1000
_NOTIFY_MULTIPLIER = 4
NO_VECTOR = 0xFFFF
ISR_QUEUE, ISR_CONFIG = 1, 2
_COMMAND_MASTER = 4

# The capabilities' places in configuration space.
_CAPABILITIES = 0x34
_STATUS_HAS_LIST = 0x10
_ID_VENDOR, _ID_MSIX = 0x09, 0x11
_AT_MSIX, _AT_COMMON, _AT_ISR, _AT_DEVICE, _AT_NOTIFY, _AT_WINDOW = 0x40, 0x4C, 0x5C, 0x6C, 0x7C, 0x90
_MSIX_CONTROL = _AT_MSIX + 3
_MSIX_ENABLE, _MSIX_MASK = 0x80, 0x40
_TYPE_COMMON, _TYPE_NOTIFY, _TYPE_ISR, _TYPE_DEVICE, _TYPE_WINDOW = 1, 2, 3, 4, 5
_WINDOW_BAR, _WINDOW_OFFSET, _WINDOW_LENGTH, _WINDOW_DATA = (_AT_WINDOW + at for at in (4, 8, 12, 16))

_SAVED = ("_device_select", "_driver_select", "_queue_select", "_config_vector", "_queue_vectors", "_isr")

# struct virtio_pci_common_cfg, section 4.1.4.3.
_COMMON_LAYOUT = struct.Struct("<IIIIHHBBHHHHHQQQ")


class VirtioPci(PciFunction):
    """The PCI function of ``device``.  Message-signalled interrupts go to ``send``; INTA is the other way."""

    def __init__(self, device: VirtioDevice, class_code: int, send: msi.SendMessage) -> None:
        number = FIRST_DEVICE + device.backend.device_type
        super().__init__(device.backend.name, VENDOR, number, class_code, revision=REVISION, interrupt_pin=1)
        self._device = device
        self._msix = msi.MsixTable(len(device.queues) + 1, send)
        device.on_queue = self._queue_interrupt
        device.on_config = self._config_interrupt
        self._forget()
        self.add_bar(MSIX_BAR, msi.BAR_SIZE, BarKind.MEMORY, self._msix.read, self._msix.write)
        self.add_bar(REGISTER_BAR, 4 * _REGION, BarKind.MEMORY, self._read_register, self._write_register)
        self._add_capabilities()

    def _forget(self) -> None:
        """The transport's state after a reset of the device."""
        self._device_select = self._driver_select = self._queue_select = 0
        self._config_vector = NO_VECTOR
        self._queue_vectors = [NO_VECTOR] * len(self._device.queues)
        self._isr = 0

    def reset(self) -> None:
        self._device.reset()
        self._msix.reset()
        self._forget()
        super().reset()

    def save(self) -> dict[str, Any]:
        own = {"msix": self._msix.save(), "device": self._device.save()}
        return {**super().save(), **save_fields(self, _SAVED), **own}

    def load(self, state: Mapping[str, Any]) -> None:
        super().load(state)
        if len(state["queue_vectors"]) != len(self._queue_vectors):
            raise ValueError(f"vectors of {len(state['queue_vectors'])} queues")
        load_fields(self, _SAVED, state)
        self._msix.load(state["msix"])
        self._device.load(state["device"])

    # -- configuration space -------------------------------------------------------------------------------------------

    def _add_capabilities(self) -> None:
        self.preset(STATUS, 2, _STATUS_HAS_LIST)
        self.preset(_CAPABILITIES, 1, _AT_MSIX)
        control = self._msix.vectors - 1
        msix = struct.pack("<BBHII", _ID_MSIX, _AT_COMMON, control, MSIX_BAR, msi.PENDING_OFFSET | MSIX_BAR)
        self.preset(_AT_MSIX, len(msix), int.from_bytes(msix, "little"))
        self.allow_writes(_MSIX_CONTROL, 1, _MSIX_ENABLE | _MSIX_MASK)
        config_size = len(self._device.backend.config)
        for at, following, kind, where, length, tail in (
            (_AT_COMMON, _AT_ISR, _TYPE_COMMON, COMMON, _COMMON_LAYOUT.size, b""),
            (_AT_ISR, _AT_DEVICE, _TYPE_ISR, ISR, 1, b""),
            (_AT_DEVICE, _AT_NOTIFY, _TYPE_DEVICE, DEVICE, config_size, b""),
            (_AT_NOTIFY, _AT_WINDOW, _TYPE_NOTIFY, NOTIFY, _REGION, struct.pack("<I", _NOTIFY_MULTIPLIER)),
            (_AT_WINDOW, 0, _TYPE_WINDOW, 0, 0, bytes(4)),
        ):
            bar = 0 if kind == _TYPE_WINDOW else REGISTER_BAR
            size = 16 + len(tail)
            capability = struct.pack("<BBBBB3xII", _ID_VENDOR, following, size, kind, bar, where, length) + tail
            self.preset(at, size, int.from_bytes(capability, "little"))
        self.allow_writes(_WINDOW_BAR, 1)
        self.allow_writes(_WINDOW_OFFSET, 12)

    def read(self, offset: int, size: int) -> int:
        if _WINDOW_DATA <= offset < _WINDOW_DATA + 4:
            target = self._window()
            if target is not None:
                bar, at, length = target
                value = bar.read(at, length) & (1 << 8 * length) - 1
                self.config[_WINDOW_DATA : _WINDOW_DATA + length] = value.to_bytes(length, "little")
        return super().read(offset, size)

    def write(self, offset: int, size: int, value: int) -> None:
        super().write(offset, size, value)
        if _WINDOW_DATA <= offset < _WINDOW_DATA + 4:
            target = self._window()
            if target is not None:
                bar, at, length = target
                bar.write(at, length, int.from_bytes(self.config[_WINDOW_DATA : _WINDOW_DATA + length], "little"))

    def _window(self) -> tuple[PciBar, int, int] | None:
        """Where an access through the capability VIRTIO_PCI_CAP_PCI_CFG goes: BAR, offset and length."""
        number = self.config[_WINDOW_BAR]
        offset, length = struct.unpack_from("<II", self.config, _WINDOW_OFFSET)
        if length not in (1, 2, 4) or offset % length:
            return None
        for bar in self.bars:
            if bar.index == number and offset + length <= bar.size:
                return bar, offset, length
        return None

    def written(self, offset: int, size: int) -> None:
        control = self.config[_MSIX_CONTROL]
        self._msix.set_control(enabled=bool(control & _MSIX_ENABLE), masked=bool(control & _MSIX_MASK))
        self._update_pin()

    # -- interrupts ----------------------------------------------------------------------------------------------------

    def _queue_interrupt(self, index: int) -> None:
        if self._msix.enabled:
            self._msix.trigger(self._queue_vectors[index])
        else:
            self._isr |= ISR_QUEUE
            self._update_pin()

    def _config_interrupt(self) -> None:
        self._isr |= ISR_CONFIG
        if self._msix.enabled:
            self._msix.trigger(self._config_vector)
        else:
            self._update_pin()

    def _update_pin(self) -> None:
        self.set_interrupt(bool(self._isr) and not self._msix.enabled)

    # -- registers -----------------------------------------------------------------------------------------------------

    def _read_register(self, offset: int, size: int) -> int:
        region, at = offset & ~(_REGION - 1), offset & (_REGION - 1)
        if region == COMMON:
            return int.from_bytes(self._common()[at : at + size], "little")
        if region == DEVICE:
            return int.from_bytes(self._device.backend.config[at : at + size], "little")
        if region == ISR and at == 0:
            value, self._isr = self._isr, 0
            self._update_pin()
            return value
        return 0

    def _write_register(self, offset: int, size: int, value: int) -> None:
        region, at = offset & ~(_REGION - 1), offset & (_REGION - 1)
        if region == COMMON:
            if size == 8:
                # Only the three addresses are that wide, and each half can be written alone.
                self._write_common(at, 4, value & 0xFFFF_FFFF)
                self._write_common(at + 4, 4, value >> 32)
            else:
                self._write_common(at, size, value)
        elif region == NOTIFY and self.config[COMMAND] & _COMMAND_MASTER:
            # A device that may not reach memory cannot serve.
            self._device.notify(at // _NOTIFY_MULTIPLIER)

    def _common(self) -> bytes:
        device = self._device
        selected = self._queue_select
        queue_fields: tuple[int, ...] = (0,) * 7
        if selected < len(device.queues):
            queue = device.queues[selected]
            queue_fields = (
                queue.size,
                self._queue_vectors[selected],
                int(queue.enabled),
                selected,
                queue.descriptors,
                queue.driver_area,
                queue.device_area,
            )
        return _COMMON_LAYOUT.pack(
            self._device_select,
            _half(device.offered, self._device_select),
            self._driver_select,
            _half(device.accepted, self._driver_select),
            self._config_vector,
            len(device.queues),
            device.status,
            0,  # the configuration never changes
            selected,
            *queue_fields,
        )

    def _write_common(self, at: int, size: int, value: int) -> None:
        device = self._device
        match at, size:
            case 0x00, 4:
                self._device_select = value
            case 0x08, 4:
                self._driver_select = value
            case 0x0C, 4 if self._driver_select < 2:
                shift = 32 * self._driver_select
                device.accept(0xFFFF_FFFF << shift, value << shift)
            case 0x10, 2:
                self._config_vector = self._vector(value)
            case 0x14, 1:
                device.write_status(value)
                if value == 0:
                    self._forget()
                    self._update_pin()
            case 0x16, 2:
                self._queue_select = value
            case _ if self._queue_select < len(device.queues):
                self._write_queue(self._queue_select, at, size, value)

    def _write_queue(self, index: int, at: int, size: int, value: int) -> None:
        queue = self._device.queues[index]
        if (at, size) == (0x1A, 2):
            self._queue_vectors[index] = self._vector(value)
        elif queue.enabled:
            # The rest is fixed until a reset.
            return
        elif (at, size) == (0x18, 2):
            queue.size = value
        elif (at, size) == (0x1C, 2):
            if value == 1:
                self._device.enable_queue(index)
        elif size == 4:
            shift = 8 * (at & 4)
            keep = 0xFFFF_FFFF_0000_0000 >> shift
            if at in (0x20, 0x24):
                queue.descriptors = queue.descriptors & keep | value << shift
            elif at in (0x28, 0x2C):
                queue.driver_area = queue.driver_area & keep | value << shift
            elif at in (0x30, 0x34):
                queue.device_area = queue.device_area & keep | value << shift

    def _vector(self, value: int) -> int:
        return value if value < self._msix.vectors else NO_VECTOR


def _half(features: int, select: int) -> int:
    return features >> 32 * select & 0xFFFF_FFFF if select < 2 else 0
