"""The cipher of a guest's memory: AES-128 on blocks of 16 bytes, each whitened by a value of its address.

A block's ciphertext is E(plaintext ^ T) ^ T, with T the exclusive or of one constant for each bit that is set in the
block's address.  That is what was found on EPYC processors of the second generation (Wilke et al., "SEVurity: No
Security Without Integrity", 2020, section IV; there the constants are the hardware's, here they come from the key).
Equal plaintext gives unequal ciphertext in every block, and ciphertext that is moved deciphers to garbage; nothing
tells that it was moved.  This imitates hardware and protects nobody.
"""

from __future__ import annotations

import hashlib

from sevplug.sevapi import compiled

KEY_SIZE = 16
BLOCK = 16


def key_from_seed(seed: int) -> bytes:
    """The 16-byte memory key of a guest whose random numbers come from ``seed``, so that two runs are the same."""
    return hashlib.sha256(b"sevplug memory encryption key\0" + str(seed).encode()).digest()[:KEY_SIZE]


class MemoryCipher:
    """Enciphers and deciphers guest memory in place.

    ``key``: 16 bytes.  Guest-physical addresses and lengths are multiples of 16 (ValueError otherwise).
    """

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_SIZE:
            raise ValueError(f"memory key: expected {KEY_SIZE} bytes, found {len(key)}")
        tweak_key = hashlib.sha256(b"tweaks" + key).digest()[:KEY_SIZE]
        library = compiled.load()
        if library is None:
            from sevplug.sevapi.whitened_aes import WhitenedAes  # mostly the other one serves

            self._aes: compiled.CompiledAes | WhitenedAes = WhitenedAes(key, tweak_key)
        else:
            self._aes = compiled.CompiledAes(library, key, tweak_key)

    def encrypt(self, gpa: int, buffer: memoryview) -> None:
        """Plaintext in ``buffer``, whose first byte lies at ``gpa``, becomes ciphertext."""
        _check(gpa, buffer)
        self._aes.encrypt(gpa, buffer)

    def decrypt(self, gpa: int, buffer: memoryview) -> None:
        """Ciphertext in ``buffer``, whose first byte lies at ``gpa``, becomes plaintext."""
        _check(gpa, buffer)
        self._aes.decrypt(gpa, buffer)

    def decrypt_zeros(self, gpa: int, buffer: memoryview) -> None:
        """``buffer`` becomes what `decrypt` would make of zeros, whatever it holds; quicker."""
        _check(gpa, buffer)
        self._aes.decrypt_zeros(gpa, buffer)


def _check(gpa: int, buffer: memoryview) -> None:
    if gpa % BLOCK or len(buffer) % BLOCK:
        raise ValueError(f"memory at {gpa:#x}, {len(buffer)} bytes: expected multiples of {BLOCK}")
