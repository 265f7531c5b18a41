"""The compiled twin of the memory cipher, where it was built and the processor has instructions for AES."""

from __future__ import annotations

import ctypes
from ctypes import c_bool, c_char_p, c_size_t, c_uint64, c_void_p
from functools import cache
from pathlib import Path

from sevplug import native
from sevplug.sevapi.errors import SevApiError

_HERE, _NAME = Path(__file__).parent, "_cipher"
_ALIGNMENT = 16


def load() -> ctypes.CDLL | None:
    """The twin's library; None where it was not built, is not wanted or does not fit the processor.

    `SevApiError` when it does not belong to these sources.
    """
    return _load() if native.wanted() else None


@cache
def _load() -> ctypes.CDLL | None:
    found = native.find(_HERE, _NAME)
    if found is None:
        return None
    try:
        library = ctypes.CDLL(str(found))
        library.sevplug_cipher_supported.restype = c_bool
        library.sevplug_cipher_supported.argtypes = []
        if not library.sevplug_cipher_supported():
            return None
        library.sevplug_cipher_size.restype = c_size_t
        library.sevplug_cipher_size.argtypes = []
        library.sevplug_cipher_prepare.restype = None
        library.sevplug_cipher_prepare.argtypes = [c_void_p, c_char_p, c_char_p]
        for work in (
            library.sevplug_cipher_encrypt,
            library.sevplug_cipher_decrypt,
            library.sevplug_cipher_decrypt_zeros,
        ):
            work.restype = None
            work.argtypes = [c_void_p, c_uint64, c_void_p, c_size_t]
    except (OSError, AttributeError) as error:
        raise SevApiError(f"the compiled memory cipher in {found} cannot be used: {error}; {native.WAY_OUT}") from None
    return library


def describe() -> str:
    """Which cipher a machine that is built now would have, and why."""
    if native.wanted() and load() is None and native.find(_HERE, _NAME) is not None:
        return "python (the processor has no instructions for AES)"
    return native.describe(load() is not None)


class CompiledAes:
    """As `sevplug.sevapi.whitened_aes.WhitenedAes`."""

    def __init__(self, library: ctypes.CDLL, key: bytes, tweak_key: bytes) -> None:
        self._encrypt = library.sevplug_cipher_encrypt
        self._decrypt = library.sevplug_cipher_decrypt
        self._decrypt_zeros = library.sevplug_cipher_decrypt_zeros
        place, self._kept = native.address_of(bytearray(library.sevplug_cipher_size() + _ALIGNMENT))
        self._cipher = -(-place // _ALIGNMENT) * _ALIGNMENT
        library.sevplug_cipher_prepare(self._cipher, key, tweak_key)

    def encrypt(self, gpa: int, buffer: memoryview) -> None:
        place, _kept = native.address_of(buffer)
        self._encrypt(self._cipher, gpa, place, len(buffer))

    def decrypt(self, gpa: int, buffer: memoryview) -> None:
        place, _kept = native.address_of(buffer)
        self._decrypt(self._cipher, gpa, place, len(buffer))

    def decrypt_zeros(self, gpa: int, buffer: memoryview) -> None:
        place, _kept = native.address_of(buffer)
        self._decrypt_zeros(self._cipher, gpa, place, len(buffer))
