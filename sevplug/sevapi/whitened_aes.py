"""The memory cipher by a library's AES: the specification of the compiled one, and what serves where that cannot."""

from __future__ import annotations

from collections.abc import Callable, Iterator

_BLOCK = 16
_ADDRESS_BITS = 52
# Tweaks of a chunk of this many bytes are kept; what lies above is one value for the whole chunk.
_CHUNK_BITS = 18
_CHUNK = 1 << _CHUNK_BITS


class WhitenedAes:
    """What `sevplug.sevapi.memory_cipher.MemoryCipher` promises; ``tweak_key`` enciphers the bits' numbers."""

    def __init__(self, key: bytes, tweak_key: bytes) -> None:
        from Crypto.Cipher import AES  # only where there is something to encipher
        from Crypto.Util.strxor import strxor

        self._xor = strxor
        self._cipher = AES.new(key, AES.MODE_ECB)
        constants = AES.new(tweak_key, AES.MODE_ECB)
        self._constants = [constants.encrypt(bit.to_bytes(_BLOCK, "little")) for bit in range(_ADDRESS_BITS)]
        self._table = bytes(_BLOCK)
        # Chunk number -> what its address bits give.
        self._chunks: dict[int, bytes] = {0: bytes(_BLOCK)}

    def encrypt(self, gpa: int, buffer: memoryview) -> None:
        self._apply(self._cipher.encrypt, gpa, buffer)

    def decrypt(self, gpa: int, buffer: memoryview) -> None:
        self._apply(self._cipher.decrypt, gpa, buffer)

    def decrypt_zeros(self, gpa: int, buffer: memoryview) -> None:
        for piece, tweak in self._pieces(gpa, buffer):
            self._cipher.decrypt(tweak, output=piece)
            self._xor(piece, tweak, output=piece)

    def _apply(self, work: Callable[..., object], gpa: int, buffer: memoryview) -> None:
        for piece, tweak in self._pieces(gpa, buffer):
            self._xor(piece, tweak, output=piece)
            work(piece, output=piece)
            self._xor(piece, tweak, output=piece)

    def _pieces(self, gpa: int, buffer: memoryview) -> Iterator[tuple[memoryview, bytes]]:
        """The buffer in pieces, each with what it is whitened by."""
        done = 0
        while done < len(buffer):
            inside = (gpa + done) % _CHUNK
            piece = buffer[done : done + min(_CHUNK - inside, len(buffer) - done)]
            yield piece, self._tweaks(gpa + done, len(piece))
            done += len(piece)

    def _tweaks(self, gpa: int, size: int) -> bytes:
        """The whitening of ``size`` bytes from ``gpa`` on, within one chunk."""
        inside = gpa % _CHUNK
        # The table doubles until it reaches far enough: small guests never need the whole.
        while len(self._table) < inside + size:
            bit = len(self._table).bit_length() - 1
            self._table += self._xor(self._table, self._constants[bit] * (len(self._table) // _BLOCK))
        table = memoryview(self._table)[inside : inside + size]
        return self._xor(table, self._above(gpa >> _CHUNK_BITS) * (size // _BLOCK))

    def _above(self, chunk: int) -> bytes:
        found = self._chunks.get(chunk)
        if found is None:
            lowest = chunk & -chunk
            constant = self._constants[_CHUNK_BITS + lowest.bit_length() - 1]
            found = self._chunks[chunk] = self._xor(self._above(chunk ^ lowest), constant)
        return found
