"""The cipher of guest memory: one value for each place, and nothing of the key anywhere."""

from __future__ import annotations

import ctypes
import hashlib
import platform
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from Crypto.Cipher import AES
from hypothesis import example, given
from hypothesis import strategies as st
from parts import missing

from sevplug import native
from sevplug.sevapi import compiled
from sevplug.sevapi.errors import SevApiError
from sevplug.sevapi.memory_cipher import MemoryCipher, key_from_seed
from sevplug.sevapi.whitened_aes import WhitenedAes

PAGE = 4096
WANTED = native.wanted()
KEY = bytes(range(0x40, 0x50))
CIPHER = MemoryCipher(KEY)
# The borders of 16 bytes, a page, the 256 KiB whose tweaks are kept, 4 GiB, and the last block that has an address.
PLACES = st.sampled_from([0, 0xFF0, 0x3FFF0, 0x40000, 0x7FFE0, 0xFFFF_FFF0, 0x1_0000_0000, (1 << 52) - 0x400]).flatmap(
    lambda base: st.integers(0, 30).map(lambda block: base + 16 * block)
)
BLOCKS = st.integers(0, 33).flatmap(lambda count: st.binary(min_size=16 * count, max_size=16 * count))


def compiled_library() -> ctypes.CDLL:
    """The compiled cipher's library, or a skip that says how to get it."""
    with pytest.MonkeyPatch.context() as patch:
        if WANTED:
            patch.setenv(native.PURE_VARIABLE, "0")
        found = compiled.load()
    if found is None:
        if platform.machine() == "x86_64" and WANTED:
            missing("the compiled memory cipher is missing: install gcc and libc6-dev, and then sevplug again")
        pytest.skip(f"no compiled memory cipher: {compiled.describe()}")
    return found


@pytest.fixture(params=["python", "compiled"], scope="module", autouse=True)
def made_by(request: pytest.FixtureRequest) -> Iterator[None]:
    """Each test is run with both ciphers."""
    if request.param == "compiled":
        compiled_library()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(native.PURE_VARIABLE, "1" if request.param == "python" else "0")
        patch.setattr(sys.modules[__name__], "CIPHER", MemoryCipher(KEY))
        yield


def encrypted(gpa: int, data: bytes, cipher: MemoryCipher | None = None) -> bytes:
    buffer = bytearray(data)
    (cipher or CIPHER).encrypt(gpa, memoryview(buffer))
    return bytes(buffer)


def decrypted(gpa: int, data: bytes, cipher: MemoryCipher | None = None) -> bytes:
    buffer = bytearray(data)
    (cipher or CIPHER).decrypt(gpa, memoryview(buffer))
    return bytes(buffer)


def by_the_formula(gpa: int, block: bytes) -> bytes:
    """E(plaintext ^ T) ^ T; T is the exclusive or of a constant for each bit of the address."""
    constants = AES.new(hashlib.sha256(b"tweaks" + KEY).digest()[:16], AES.MODE_ECB)
    tweak = 0
    for bit in range(52):
        if gpa >> bit & 1:
            tweak ^= int.from_bytes(constants.encrypt(bit.to_bytes(16, "little")), "little")
    whitened = (int.from_bytes(block, "little") ^ tweak).to_bytes(16, "little")
    return (int.from_bytes(AES.new(KEY, AES.MODE_ECB).encrypt(whitened), "little") ^ tweak).to_bytes(16, "little")


@given(PLACES, st.binary(min_size=16, max_size=16))
@example(0, bytes(16))
@example((1 << 52) - 16, bytes(16))
def test_a_block_is_what_the_formula_says(gpa: int, block: bytes) -> None:
    assert encrypted(gpa, block) == by_the_formula(gpa, block)


@given(PLACES, BLOCKS)
def test_decrypt_is_the_inverse_of_encrypt(gpa: int, data: bytes) -> None:
    assert decrypted(gpa, encrypted(gpa, data)) == data
    assert encrypted(gpa, decrypted(gpa, data)) == data


@given(PLACES, BLOCKS, st.integers(0, 33), st.booleans())
def test_pieces_are_the_same_as_all_at_once(gpa: int, data: bytes, cut: int, fresh: bool) -> None:
    # A fresh cipher has no tweaks yet.
    cipher = MemoryCipher(KEY) if fresh else CIPHER
    cut = min(16 * cut, len(data))
    parts = encrypted(gpa + cut, data[cut:], cipher), encrypted(gpa, data[:cut], cipher)
    assert parts[1] + parts[0] == encrypted(gpa, data)
    assert decrypted(gpa, data[:cut], cipher) + decrypted(gpa + cut, data[cut:], cipher) == decrypted(gpa, data)


@given(st.binary(min_size=16, max_size=16), st.binary(min_size=16, max_size=16), PLACES, BLOCKS)
def test_the_compiled_cipher_does_what_the_library_does(key: bytes, tweak_key: bytes, gpa: int, data: bytes) -> None:
    twins = WhitenedAes(key, tweak_key), compiled.CompiledAes(compiled_library(), key, tweak_key)
    for work in ("encrypt", "decrypt", "decrypt_zeros"):
        # Where it lies in memory must not matter.
        buffers = bytearray(data), bytearray(b"\xaa" + data + b"\xbb")
        getattr(twins[0], work)(gpa, memoryview(buffers[0]))
        getattr(twins[1], work)(gpa, memoryview(buffers[1])[1:-1])
        assert buffers[1] == b"\xaa" + buffers[0] + b"\xbb"


def test_one_can_see_which_is_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(native.PURE_VARIABLE, "1")
    assert compiled.describe() == "python (SEVPLUG_PURE is set)"
    monkeypatch.setenv(native.PURE_VARIABLE, "0")
    compiled_library()
    assert compiled.describe() == "compiled"


def test_a_library_that_is_none_of_ours_is_refused_in_a_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    strange = tmp_path / "_cipher.abi3.so"
    strange.write_bytes(b"no library")
    monkeypatch.setenv(native.PURE_VARIABLE, "0")
    monkeypatch.setattr(native, "find", lambda _folder, _name: strange)
    compiled._load.cache_clear()
    try:
        with pytest.raises(SevApiError) as refused:
            MemoryCipher(KEY)
    finally:
        compiled._load.cache_clear()
    assert str(refused.value).startswith(f"the compiled memory cipher in {strange} cannot be used: ")
    assert str(refused.value).endswith("; install sevplug again, or set SEVPLUG_PURE=1")


@given(PLACES, BLOCKS)
def test_decrypted_zeros_take_no_notice_of_what_is_there(gpa: int, data: bytes) -> None:
    buffer = bytearray(data)
    CIPHER.decrypt_zeros(gpa, memoryview(buffer))
    assert bytes(buffer) == decrypted(gpa, bytes(len(data)))


def test_two_mebibytes_of_zeros_are_many_pieces_and_no_block_is_like_another() -> None:
    gpa, size = 0x1FE000, 2 << 20
    buffer = bytearray(size)
    CIPHER.decrypt_zeros(gpa, memoryview(buffer))
    assert encrypted(gpa, buffer) == bytes(size)
    assert len({bytes(buffer[at : at + 16]) for at in range(0, size, 16)}) == size // 16


def test_equal_plaintext_is_unequal_in_every_block_of_every_page() -> None:
    pages = [encrypted(page * PAGE, b"the same 16 byte" * 256) for page in range(16)]
    assert len({page[at : at + 16] for page in pages for at in range(0, PAGE, 16)}) == 16 * 256


@given(PLACES, PLACES)
def test_ciphertext_that_was_moved_is_garbage(origin: int, other: int) -> None:
    data = b"\x90" * 64
    found = decrypted(other, encrypted(origin, data))
    if origin == other:
        assert found == data
    else:
        assert all(found[at : at + 16] != data[at : at + 16] for at in range(0, 64, 16))


def test_another_key_reads_garbage() -> None:
    other = MemoryCipher(key_from_seed(1))
    assert decrypted(0x1000, encrypted(0x1000, bytes(PAGE)), other) != bytes(PAGE)


def test_a_seed_gives_one_key_and_another_seed_another() -> None:
    keys = [key_from_seed(seed) for seed in (0, 1, 10, -1, 1 << 64)]
    assert keys == [key_from_seed(seed) for seed in (0, 1, 10, -1, 1 << 64)]
    assert len(set(keys)) == len(keys)
    assert {len(key) for key in keys} == {16}


@pytest.mark.parametrize("length", [0, 15, 17, 32])
def test_a_key_has_16_bytes(length: int) -> None:
    with pytest.raises(ValueError, match=rf"^memory key: expected 16 bytes, found {length}$"):
        MemoryCipher(b"K" * length)


@pytest.mark.parametrize(("gpa", "size"), [(8, 16), (0, 15), (0x1001, 4096), (0, 4104)])
@pytest.mark.parametrize("work", ["encrypt", "decrypt", "decrypt_zeros"])
def test_what_is_not_whole_blocks_is_refused_and_left_alone(work: str, gpa: int, size: int) -> None:
    buffer = bytearray(size)
    with pytest.raises(ValueError, match=rf"^memory at {gpa:#x}, {size} bytes: expected multiples of 16$"):
        getattr(CIPHER, work)(gpa, memoryview(buffer))
    assert buffer == bytes(size)


@pytest.mark.parametrize("key", [b"a secret memkey!", b"a key too short"])
def test_the_key_is_in_no_repr_and_no_message(key: bytes) -> None:
    try:
        cipher = MemoryCipher(key)
        cipher.encrypt(0x1000, memoryview(bytearray(PAGE)))
        with pytest.raises(ValueError, match="multiples") as refused:
            cipher.encrypt(1, memoryview(bytearray(16)))
        texts = [repr(cipher), str(cipher), repr(refused.value)]
    except ValueError as error:
        texts = [repr(error), str(error)]
    for text in texts:
        assert key.decode() not in text
        assert key.hex() not in text
