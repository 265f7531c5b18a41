"""The file of a snapshot.

A header of one page: magic (16 bytes), then little-endian u32 format, u32 flags (1: sealed), u64 size of the body in
bytes, 32 bytes of salt (zeros where nothing is sealed), and zeros.  The body follows, sealed or not:

    u64 size of the JSON, u64 size of the binary part, SHA-256 of the header's first 64 bytes, the JSON and the
    binary part; zeros up to the next page; memory.

The JSON (`encoding`) holds the identity and the state of the machine and, under ``memory``, where memory's pieces lie
(`image.Extent`) and a SHA-256 for each MiB of them.  So each byte of the file is covered by a digest, or is zero.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import attrs

from sevplug.core.errors import SnapshotError
from sevplug.core.images import OwnedFile
from sevplug.core.memory import PAGE_SIZE
from sevplug.core.snapshot import encoding, sealing
from sevplug.core.snapshot.image import MemoryImage, memory_file

# Raised whenever what a file holds changes its meaning.
FORMAT: Final = 2
MAGIC: Final = b"sevplug snapshot"
_HEADER = struct.Struct(f"<16sIIQ{sealing.SALT_SIZE}s")
_SIZES = struct.Struct("<QQ32s")
_SEALED = 1
_PIECE: Final = sealing.PIECE
_DIGEST_SIZE: Final = 32
_HEADER_PAGE: Final = PAGE_SIZE


@attrs.frozen
class Contents:
    """What was in a file: its JSON as plain data, and memory, ``size`` bytes of ``file`` from ``base`` on."""

    document: dict[str, Any]
    file: OwnedFile
    base: int
    size: int


def write(descriptor: int, document: dict[str, Any], memory: Iterable[bytes], size: int, key: bytes | None) -> None:
    """Write a snapshot to an empty file; ``memory``: its pieces, ``size`` bytes in all, a multiple of 4096.

    ``document`` is completed by the digests of memory.  OSError as the system gives it.
    """
    count = -(-size // _PIECE)
    # As many digests as there will be: so it is known where memory begins.
    front_size = _memory_at(*encoding.encode({**document, "digests": bytes(_DIGEST_SIZE * count)}))
    salt = bytes(sealing.SALT_SIZE) if key is None else os.urandom(sealing.SALT_SIZE)
    header = _HEADER.pack(MAGIC, FORMAT, 0 if key is None else _SEALED, front_size + size, salt)
    body, base = (OwnedFile(os.dup(descriptor)), _HEADER_PAGE) if key is None else (memory_file(), 0)
    digests = []
    at = base + front_size
    for block in _regular(memory):
        digests.append(hashlib.sha256(block).digest())
        at += _write_all(body.descriptor, block, at)
    if at - base - front_size != size:
        raise ValueError(f"{at - base - front_size} bytes of memory, expected {size}")
    text, blob = encoding.encode({**document, "digests": b"".join(digests)})
    _write_all(body.descriptor, _front(header, text, blob), base)
    _write_all(descriptor, header.ljust(_HEADER_PAGE, b"\0"), 0)
    if key is not None:
        pieces = _pieces(body, [(0, front_size + size)])
        at = _HEADER_PAGE
        for sealed in sealing.seal(key, salt, header, pieces, front_size + size):
            at += _write_all(descriptor, sealed, at)


def read(path: str, key: bytes | None) -> Contents:
    """Read the file at ``path``; `SnapshotError`, one line, for whatever is not right with it.

    A sealed one is deciphered into memory, another is used where it lies.
    """
    where = f"snapshot {path}"
    try:
        file = OwnedFile(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK))
        held = os.fstat(file.descriptor).st_size
        page = os.pread(file.descriptor, _HEADER_PAGE, 0)
    except OSError as error:
        raise SnapshotError(f"{where}: {error.strerror or error}") from None
    except ValueError:
        raise SnapshotError(f"snapshot {path!r}: not a file name") from None
    if not page.startswith(MAGIC):
        raise SnapshotError(f"{where}: not a snapshot of sevplug")
    if len(page) < _HEADER_PAGE:
        raise SnapshotError(f"{where}: truncated, the header alone has {_HEADER_PAGE} bytes")
    header = page[: _HEADER.size]
    _magic, number, flags, size, salt = _HEADER.unpack(header)
    if number != FORMAT:
        raise SnapshotError(f"{where}: format {number}, this sevplug reads format {FORMAT}")
    if flags & ~_SEALED or any(page[_HEADER.size :]):
        raise SnapshotError(f"{where}: the header is damaged")
    sealed = bool(flags & _SEALED)
    expected = _HEADER_PAGE + (sealing.sealed_size(size) if sealed else size)
    if held != expected:
        verb = "truncated" if held < expected else "damaged"
        raise SnapshotError(f"{where}: {verb}, {held} bytes where its header says {expected}")
    if sealed and key is None:
        raise SnapshotError(f"{where}: it is under a key, expected --snapshot-key")
    if not sealed and key is not None:
        raise SnapshotError(f"{where}: it is under no key, expected no --snapshot-key")
    base = _HEADER_PAGE
    if sealed and key is not None:
        target = memory_file()
        try:
            sealing.unseal(key, salt, header, file.descriptor, _HEADER_PAGE, size, target.descriptor)
        except ValueError:
            raise SnapshotError(f"{where}: it was made under another key, or is damaged") from None
        file, base = target, 0
    return _checked(where, file, base, header, size, sealed)


def _checked(where: str, file: OwnedFile, base: int, header: bytes, size: int, sealed: bool) -> Contents:
    """The contents of a body; what its seal has not shown to be whole, digests have to."""
    damaged = SnapshotError(f"{where}: damaged, a digest in it does not fit")
    front = os.pread(file.descriptor, _SIZES.size, base)
    if len(front) < _SIZES.size:
        raise damaged
    text_size, blob_size, digest = _SIZES.unpack(front)
    memory_at = -(-(_SIZES.size + text_size + blob_size) // PAGE_SIZE) * PAGE_SIZE
    if memory_at > size:
        raise damaged
    rest = os.pread(file.descriptor, memory_at - _SIZES.size, base + _SIZES.size)
    text, blob, padding = rest[:text_size], rest[text_size : text_size + blob_size], rest[text_size + blob_size :]
    if hashlib.sha256(header + front[:16] + text + blob).digest() != digest or any(padding):
        raise damaged
    try:
        document = encoding.decode(text, blob)
        digests = document["digests"]
    except (ValueError, KeyError, TypeError):
        raise SnapshotError(f"{where}: what it holds is no state of a machine") from None
    length = size - memory_at
    if not isinstance(digests, bytes) or len(digests) != _DIGEST_SIZE * -(-length // _PIECE):
        raise damaged
    if not sealed:
        _check_memory(damaged, file, base + memory_at, length, digests)
    return Contents(document, file, base + memory_at, length)


def _check_memory(damaged: SnapshotError, file: OwnedFile, base: int, length: int, digests: bytes) -> None:
    def fits(number: int) -> bool:
        piece = os.pread(file.descriptor, min(_PIECE, length - number * _PIECE), base + number * _PIECE)
        return hashlib.sha256(piece).digest() == digests[number * _DIGEST_SIZE : (number + 1) * _DIGEST_SIZE]

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        if not all(pool.map(fits, range(-(-length // _PIECE)))):
            raise damaged


def pieces_of(image: MemoryImage, parts: Iterable[tuple[int, int]]) -> Iterator[bytes]:
    """The bytes of ``image`` at each (offset, size)."""
    return _pieces(image.file, [(image.base + offset, size) for offset, size in parts])


def _pieces(file: OwnedFile, parts: Iterable[tuple[int, int]]) -> Iterator[bytes]:
    for offset, size in parts:
        for done in range(0, size, _PIECE):
            yield os.pread(file.descriptor, min(_PIECE, size - done), offset + done)


def _front(header: bytes, text: bytes, blob: bytes) -> bytes:
    sizes = struct.pack("<QQ", len(text), len(blob))
    digest = hashlib.sha256(header + sizes + text + blob).digest()
    return (sizes + digest + text + blob).ljust(_memory_at(text, blob), b"\0")


def _memory_at(text: bytes, blob: bytes) -> int:
    """Where memory begins in the body."""
    return -(-(_SIZES.size + len(text) + len(blob)) // PAGE_SIZE) * PAGE_SIZE


def _regular(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes in pieces of `_PIECE`, but for the last."""
    gathered = bytearray()
    for piece in pieces:
        gathered += piece
        while len(gathered) >= _PIECE:
            yield bytes(gathered[:_PIECE])
            del gathered[:_PIECE]
    if gathered:
        yield bytes(gathered)


def _write_all(descriptor: int, data: bytes, offset: int) -> int:
    done = 0
    while done < len(data):
        done += os.pwrite(descriptor, memoryview(data)[done:], offset + done)
    return done
