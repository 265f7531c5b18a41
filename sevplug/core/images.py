"""The files that a guest starts from: read once, let go when the guest has them, read again where it asks again.

A file is not mapped: whoever shortens a mapped file kills the process at its next look, and whoever rewrites it changes
what was measured.  A private copy is measured and handed on; it is given back when nobody is expected to ask again,
and what is read then has to be the same, by its SHA-256.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from pathlib import Path

import attrs

from sevplug.core.errors import ConfigError


class OwnedFile:
    """A descriptor that is closed with the last reference to this."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def __del__(self) -> None:
        with contextlib.suppress(OSError):
            os.close(self.descriptor)


@attrs.define(eq=False, repr=False)
class Image:
    """The bytes of a file that the guest starts from, as a value; ``path`` is for messages only."""

    _data: bytes | None
    path: str
    # Where to read it again: the file that was opened, whatever has its name now.  None: it is never let go.
    _file: OwnedFile | None = attrs.field(default=None, kw_only=True)
    _role: str = attrs.field(default="image", kw_only=True)
    _size: int = attrs.field(init=False)
    _sha256: str | None = attrs.field(init=False, default=None)

    def __attrs_post_init__(self) -> None:
        self._size = len(self.data)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Image):
            return NotImplemented
        return self is other or (self.path, self.size, self.sha256) == (other.path, other.size, other.sha256)

    def __hash__(self) -> int:
        return hash((self.path, self._size))

    def __repr__(self) -> str:
        return f"Image(data=<{self._size} bytes>, path={self.path!r})"

    @classmethod
    def load(cls, path: str | Path, what: str, *, limit: int | None = None) -> Image:
        """Read ``path`` whole.

        ``what`` names the role in messages ("firmware").  `ConfigError` when the file is missing, unreadable, empty
        or larger than ``limit`` bytes.
        """
        try:
            size = Path(path).stat().st_size
            if limit is not None and size > limit:
                raise ConfigError(f"{what} {path}: {size} bytes, expected at most {limit}")
            with Path(path).open("rb") as file:
                regular = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
                # A device can be endless and say that it has no size.
                data = file.read(-1 if limit is None or regular else limit + 1)
                # What a pipe has said, it does not say again.
                again = OwnedFile(os.dup(file.fileno())) if regular else None
        except OSError as error:
            raise ConfigError(f"{what} {path}: {error.strerror or error}") from None
        except ValueError:
            raise ConfigError(f"{what} {str(path)!r}: not a file name") from None
        if limit is not None and len(data) > limit:
            raise ConfigError(f"{what} {path}: more than {limit} bytes, expected at most {limit}")
        if not data:
            raise ConfigError(f"{what} {path}: the file is empty")
        return cls(data, str(path), file=again, role=what)

    @property
    def data(self) -> bytes:
        """All of its bytes.

        `ConfigError` when they were let go and the file has changed: the guest gets what was measured, or nothing.
        """
        if self._data is None:
            self._data = self._read_again()
        return self._data

    @property
    def size(self) -> int:
        """How many bytes it has."""
        return self._size

    @property
    def sha256(self) -> str:
        """Its SHA-256, in hex."""
        if self._sha256 is None:
            self._sha256 = hashlib.sha256(self.data).hexdigest()
        return self._sha256

    def let_go(self) -> None:
        """Give the memory back; whoever asks for `data` later has it read again.

        Nothing happens where there is no file that could be read again.
        """
        if self._file is not None and self._data is not None:
            _ = self.sha256
            self._data = None
            from sevplug.core.engine import host_memory  # there is one by now

            host_memory.trim()

    def _read_again(self) -> bytes:
        assert self._file is not None
        try:
            data = _read_at(self._file.descriptor, self._size + 1)
        except OSError as error:
            raise ConfigError(f"{self._role} {self.path}: {error.strerror or error}") from None
        if hashlib.sha256(data).hexdigest() != self._sha256:
            raise ConfigError(
                f"{self._role} {self.path}: the file was changed while the guest ran, which asks for it again: "
                f"expected the {self._size} bytes with SHA-256 {self._sha256}"
            )
        return data


def _read_at(descriptor: int, size: int) -> bytes:
    """Up to ``size`` bytes from the beginning of a file; a single call of the host reads 2 GiB at most."""
    data = b""
    while len(data) < size and (piece := os.pread(descriptor, size - len(data), len(data))):
        data = data + piece if data else piece
    return data


@attrs.frozen
class ImagePart:
    """``size`` bytes of ``image`` from ``start`` on, and ``padding`` zeros behind them; it holds none of them."""

    image: Image
    start: int
    size: int
    padding: int = 0

    def __len__(self) -> int:
        return self.size + self.padding

    @property
    def view(self) -> memoryview:
        """The bytes where they lie, without the padding; `ConfigError` as `Image.data`."""
        return memoryview(self.image.data)[self.start : self.start + self.size]

    @property
    def data(self) -> bytes:
        """The bytes with the padding: a copy, unless it is all of the image; `ConfigError` as `Image.data`."""
        if len(self) == self.image.size:
            return self.image.data
        return b"".join((self.view, bytes(self.padding)))
