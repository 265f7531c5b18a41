"""A snapshot under a key: AES-256-GCM in pieces, so that neither size nor order can be changed unnoticed.

The key of a file comes from the user's by HKDF-SHA256 with a salt of its own, so that nonces may count from zero
(NIST SP 800-38D, section 8.2.1).  A piece's nonce is its number, and whether it is the last; the file's header is
authenticated with each.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any, Final

from sevplug.core.errors import SnapshotError

SALT_SIZE: Final = 32
PIECE: Final = 1 << 20
TAG_SIZE: Final = 16
_LEAST, _LIMIT = 16, 4096
_PURPOSE: Final = b"sevplug snapshot"


def read_snapshot_key(path: str, option: str = "--snapshot-key") -> bytes:
    """The key in the file ``path``: its bytes as they are, 16 to 4096.

    `SnapshotError` names ``option`` and the file, and nothing that is in it.
    """
    try:
        with open(path, "rb") as file:
            key = file.read(_LIMIT + 1)
    except OSError as error:
        raise SnapshotError(f"{option} {path}: {error.strerror or error}") from None
    except ValueError:
        raise SnapshotError(f"{option} {path!r}: not a file name") from None
    if not _LEAST <= len(key) <= _LIMIT:
        raise SnapshotError(f"{option} {path}: expected {_LEAST} to {_LIMIT} random bytes")
    return key


def sealed_size(size: int) -> int:
    """The bytes that ``size`` bytes become."""
    return size + TAG_SIZE * _count(size)


def seal(key: bytes, salt: bytes, header: bytes, pieces: Iterable[bytes], size: int) -> Iterator[bytes]:
    """What the ``pieces`` of `PIECE` bytes (the last may be shorter, ``size`` bytes in all) become, one by one."""
    file_key, last = _derive(key, salt), _count(size) - 1
    for number, piece in enumerate(pieces):
        sealed, tag = _cipher(file_key, header, number, number == last).encrypt_and_digest(piece)
        yield sealed + tag


def unseal(key: bytes, salt: bytes, header: bytes, source: int, offset: int, size: int, target: int) -> None:
    """Decipher ``size`` bytes of plaintext from descriptor ``source``, ``offset`` on, to the start of ``target``.

    On all processors.  ValueError where a piece was not made with this key, or was changed.
    """
    from concurrent.futures import ThreadPoolExecutor

    file_key, count = _derive(key, salt), _count(size)

    def one(number: int) -> None:
        length = min(PIECE, size - number * PIECE)
        sealed = os.pread(source, length + TAG_SIZE, offset + number * (PIECE + TAG_SIZE))
        cipher = _cipher(file_key, header, number, number == count - 1)
        piece = cipher.decrypt_and_verify(sealed[:length], sealed[length:])
        os.pwrite(target, piece, number * PIECE)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _done in pool.map(one, range(count)):
            pass


def _count(size: int) -> int:
    return max(1, -(-size // PIECE))


def _derive(key: bytes, salt: bytes) -> bytes:
    from Crypto.Hash import SHA256  # only where there is something to encipher
    from Crypto.Protocol.KDF import HKDF

    derived = HKDF(key, 32, salt, SHA256, context=_PURPOSE)
    assert isinstance(derived, bytes)
    return derived


def _cipher(key: bytes, header: bytes, number: int, last: bool) -> Any:
    from Crypto.Cipher import AES

    cipher = AES.new(key, AES.MODE_GCM, nonce=number.to_bytes(11, "big") + bytes([last]), mac_len=TAG_SIZE)
    cipher.update(header)
    return cipher
