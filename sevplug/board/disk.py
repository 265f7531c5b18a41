"""A disk of the guest: a raw image file that is never written, and what the guest wrote, in memory.

With ``readonly=on`` the guest is told that it cannot write; otherwise its writes go to an overlay that lives as long as
the machine does (resets included), so one image serves any number of runs.
"""

from __future__ import annotations

import os
import stat

import attrs

from sevplug.core.errors import ConfigError

SECTOR = 512
# The overlay's unit; a page, which is what file systems mostly write.
_BLOCK = 4096
_SWITCH = {"on": True, "yes": True, "true": True, "y": True, "off": False, "no": False, "false": False, "n": False}


@attrs.frozen
class DiskSpec:
    """A disk as the user asked for it; ``option`` is what named it, for messages."""

    path: str
    read_only: bool = False
    option: str = "--disk"


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
        self._overlay: dict[int, bytearray] = {}
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
            block[start : start + count] = data[done : done + count]
            done += count

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
