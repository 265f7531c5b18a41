"""A disk of the guest: a raw image file that is never written, and what the guest wrote, in memory.

With ``readonly=on`` the guest is told that it cannot write; otherwise its writes go to an overlay that lives as long as
the machine does (resets included), so one image serves any number of runs.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping
from typing import Any

import attrs

from sevplug.core.errors import ConfigError, SnapshotError

SECTOR = 512
# The overlay's unit; a page, which is what file systems mostly write.
_BLOCK = 4096
_DIGEST_PIECE = 1 << 20
_SWITCH = {"on": True, "yes": True, "true": True, "y": True, "off": False, "no": False, "false": False, "n": False}


@attrs.frozen
class DiskSpec:
    """A disk as the user asked for it; ``option`` is what named it, for messages."""

    path: str
    read_only: bool = False
    option: str = "--disk"

    def __str__(self) -> str:
        """As `parse_disk` takes it."""
        return self.path.replace(",", ",,") + (",readonly=on" if self.read_only else "")


def parse_disk(text: str, option: str = "--disk") -> DiskSpec:
    """``FILE[,readonly=on|off]``; a comma in the file's name is written twice, as in QEMU.

    `ConfigError` for anything else.
    """
    if "\0" in text:
        raise ConfigError(f"{option} {text!r}: not a file name")
    path, *settings = (part.replace("\0", ",") for part in text.replace(",,", "\0").split(","))
    read_only = False
    for setting in settings:
        name, _equals, value = setting.partition("=")
        if name != "readonly" or value not in _SWITCH:
            raise ConfigError(f"{option} {text}: {setting!r} is not supported, expected readonly=on or readonly=off")
        read_only = _SWITCH[value]
    if not path:
        raise ConfigError(f"{option} {text!r}: expected FILE[,readonly=on|off]")
    return DiskSpec(path, read_only, option)


class Disk:
    """An open image.  Offsets and sizes are in bytes, and the caller keeps them inside ``size``."""

    def __init__(self, spec: DiskSpec) -> None:
        """Open the image of ``spec``.

        `ConfigError` when it is missing, unreadable, empty, a directory or another thing without a size, or no whole
        number of sectors.
        """
        self.path = spec.path
        self.read_only = spec.read_only
        self.option = spec.option
        self._known_digest = (-1, "")
        self._overlay: dict[int, bytes | bytearray] = {}
        self._file = -1
        where = f"{spec.option} {spec.path}"
        try:
            # Without O_NONBLOCK a FIFO would wait for its writer.
            self._file = os.open(spec.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            mode = os.fstat(self._file).st_mode
            self.size = os.lseek(self._file, 0, os.SEEK_END) if stat.S_ISREG(mode) or stat.S_ISBLK(mode) else -1
        except OSError as error:
            self.close()
            raise ConfigError(f"{where}: {error.strerror or error}") from None
        except ValueError:
            raise ConfigError(f"{spec.option} {spec.path!r}: not a file name") from None
        wrong = _refusal(mode, self.size)
        if wrong is not None:
            self.close()
            raise ConfigError(f"{where}: {wrong}")

    def read(self, offset: int, size: int) -> bytes:
        """``size`` bytes from ``offset`` on; OSError when the host cannot read its file."""
        overlay = self._overlay
        base = self._read_file(offset, size)
        if not overlay:
            return base
        data = bytearray(base)
        for number in range(offset // _BLOCK, -(-(offset + size) // _BLOCK)):
            block = overlay.get(number)
            if block is not None:
                at = number * _BLOCK
                first, last = max(offset, at), min(offset + size, at + _BLOCK)
                data[first - offset : last - offset] = block[first - at : last - at]
        return bytes(data)

    def write(self, offset: int, data: bytes) -> None:
        """Keep ``data`` for ``offset`` in the overlay; OSError when the host cannot read its file."""
        done = 0
        while done < len(data):
            number, start = divmod(offset + done, _BLOCK)
            count = min(_BLOCK - start, len(data) - done)
            block = self._overlay.get(number)
            if block is None:
                at = number * _BLOCK
                block = bytearray(_BLOCK)
                if count < _BLOCK:
                    old = self._read_file(at, min(_BLOCK, self.size - at))
                    block[: len(old)] = old
                self._overlay[number] = block
            elif isinstance(block, bytes):
                # A snapshot has it too.
                block = self._overlay[number] = bytearray(block)
            block[start : start + count] = data[done : done + count]
            done += count

    def save(self) -> dict[str, Any]:
        """What the guest wrote, and which image it wrote over, as plain data."""
        for number, block in self._overlay.items():
            self._overlay[number] = bytes(block)
        held = os.fstat(self._file)
        return {
            "read_only": self.read_only,
            "size": self.size,
            "modified_ns": held.st_mtime_ns,
            "sha256": self._digest(held),
            "blocks": [[number, block] for number, block in sorted(self._overlay.items())],
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Put back what `save` gave; `SnapshotError` where that was over another image.

        An image of the same size that was modified at the same time counts as the same, any other by its SHA-256.
        """
        held = os.fstat(self._file)
        same = state["size"] == self.size and (
            state["modified_ns"] == held.st_mtime_ns or state["sha256"] == self._digest(held)
        )
        if not same or state["read_only"] is not self.read_only:
            raise SnapshotError(f"{self.option} {self.path}: not the disk that the snapshot was made with")
        blocks = {int(number): block for number, block in state["blocks"]}
        if not all(isinstance(block, bytes) and len(block) == _BLOCK for block in blocks.values()):
            raise ValueError("blocks of another size")
        self._overlay = blocks

    def _digest(self, held: os.stat_result) -> str:
        """The SHA-256 of the image, once for as long as it is not modified."""
        known, found = self._known_digest
        if known != held.st_mtime_ns:
            digest = hashlib.sha256()
            for offset in range(0, self.size, _DIGEST_PIECE):
                digest.update(self._read_file(offset, min(_DIGEST_PIECE, self.size - offset)))
            found = digest.hexdigest()
            self._known_digest = held.st_mtime_ns, found
        return found

    def close(self) -> None:
        """Give the file and the overlay back; harmless when called again."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        self._overlay.clear()

    def _read_file(self, offset: int, size: int) -> bytes:
        pieces = []
        while size > 0:
            piece = os.pread(self._file, size, offset)
            if not piece:
                raise OSError(f"{self.path}: the file has become shorter")
            pieces.append(piece)
            offset += len(piece)
            size -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _refusal(mode: int, size: int) -> str | None:
    """Why a file of this mode and size is no disk, or None."""
    if stat.S_ISDIR(mode):
        return "a directory, expected a raw disk image"
    if size < 0:
        return "not a regular file, expected a raw disk image"
    if size == 0:
        return "the file is empty, expected a raw disk image"
    if size % SECTOR:
        return f"{size} bytes, expected a multiple of {SECTOR}"
    return None
