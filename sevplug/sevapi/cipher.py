"""AES-128 in counter mode, with which SEV encrypts what owner and platform send each other."""

from __future__ import annotations


def aes_ctr(key: bytes, iv: bytes, data: bytes) -> bytes:
    """`data` encrypted or decrypted; `iv` (16 bytes) is the first value of a 128-bit big-endian counter."""
    # Imported here: loading the native modules of a cipher would slow down every start, secret or no secret.
    from Crypto.Cipher import AES

    return AES.new(key, AES.MODE_CTR, nonce=b"", initial_value=iv).encrypt(data)
