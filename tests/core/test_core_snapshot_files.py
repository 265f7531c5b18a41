"""The file of a snapshot: whole or not at all, and refused for whatever is not right with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from assembler import assemble
from hypothesis import given, settings
from hypothesis import strategies as st
from machines import machine_with
from snapshots import finish, run_to

from sevplug.core.errors import SnapshotError
from sevplug.core.snapshot import Snapshot, container, encoding, read_snapshot_key, sealing
from sevplug.core.whole_file import whole_file

MARK = 0x51
GUEST = f"""
    mov ax, 0x2000; mov es, ax; mov cx, 0x4000; xor di, di; 1: rdrand eax; mov es:[di], eax; add di, 4; loop 1b
    mov al, {MARK}; out 0x80, al; .byte 0xeb, 0
    rdtsc; out 0x80, eax; mov eax, es:[0x100]; out 0x80, eax; out 0xf4, al
"""
KEY, OTHER = bytes(range(32)), bytes(range(1, 33))


@pytest.fixture(scope="module")
def snapshot() -> Snapshot:
    with machine_with(assemble(GUEST)) as (machine, board):
        run_to(machine, board, MARK)
        return machine.snapshot()


@pytest.fixture(scope="module", params=[None, KEY], ids=["plain", "sealed"])
def file(request: pytest.FixtureRequest, snapshot: Snapshot, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """(path, key) of a snapshot on disk."""
    path = tmp_path_factory.mktemp("snapshots") / "guest"
    snapshot.save(str(path), request.param)
    return path, request.param


def refusal(path: Path, key: bytes | None) -> str:
    with pytest.raises(SnapshotError) as caught:
        Snapshot.load(str(path), key)
    text = str(caught.value)
    assert text.startswith(f"snapshot {path}: ")
    assert "\n" not in text
    return text.removeprefix(f"snapshot {path}: ")


def test_a_guest_goes_on_from_a_file_as_it_did(file: tuple[Path, bytes | None], snapshot: Snapshot) -> None:
    path, key = file
    with machine_with(assemble(GUEST)) as (machine, board):
        machine.restore(snapshot)
        expected = finish(machine, board)
    for _ in range(2):
        with machine_with(assemble(GUEST)) as (machine, board):
            machine.restore(Snapshot.load(str(path), key))
            assert finish(machine, board) == expected
    assert len(expected.written) == 3


def test_what_is_under_a_key_is_nowhere_in_the_clear(file: tuple[Path, bytes | None], snapshot: Snapshot) -> None:
    path, key = file
    piece = next(iter(snapshot.image.read(snapshot.image.extents[0])))[:64]
    data = path.read_bytes()
    assert (piece in data) is (key is None)
    assert (b'"registers"' in data) is (key is None)
    assert path.stat().st_mode & 0o777 == 0o600


@settings(max_examples=25)
@given(where=st.floats(0, 1, exclude_max=True), near=st.booleans(), bit=st.integers(0, 7))
def test_a_flipped_bit_anywhere_is_noticed(file: tuple[Path, bytes | None], where: float, near: bool, bit: int) -> None:
    path, key = file
    data = bytearray(path.read_bytes())
    # Half of them in the header and what lies behind it, which is little.
    data[int(where * (5000 if near else len(data)))] ^= 1 << bit
    changed = path.with_name("changed")
    changed.write_bytes(data)
    refusal(changed, key)


def test_a_flipped_bit_in_each_part_has_a_line_of_its_own(file: tuple[Path, bytes | None], tmp_path: Path) -> None:
    path, key = file
    changed = tmp_path / "changed"
    lines = []
    for offset in (0, 4095, 4096 + 60, -1):
        data = bytearray(path.read_bytes())
        data[offset] ^= 1
        changed.write_bytes(data)
        lines.append(refusal(changed, key))
    damaged = "damaged, a digest in it does not fit"
    if key is not None:
        damaged = "it was made under another key, or is damaged"
    assert lines == ["not a snapshot of sevplug", "the header is damaged", damaged, damaged]


@pytest.mark.parametrize("left", [0, 10, 4095, 4096, 5000, -4096, -1])
def test_a_truncated_file_is_noticed(file: tuple[Path, bytes | None], tmp_path: Path, left: int) -> None:
    path, key = file
    cut = tmp_path / "cut"
    cut.write_bytes(path.read_bytes()[:left])
    assert ("truncated" if left not in (0, 10) else "not a snapshot") in refusal(cut, key)


def test_what_was_appended_is_noticed(file: tuple[Path, bytes | None], tmp_path: Path) -> None:
    path, key = file
    longer = tmp_path / "longer"
    longer.write_bytes(path.read_bytes() + bytes(4096))
    assert refusal(longer, key).startswith("damaged, ")


def test_another_format_is_refused(file: tuple[Path, bytes | None], monkeypatch: pytest.MonkeyPatch) -> None:
    path, key = file
    monkeypatch.setattr(container, "FORMAT", 99)
    assert refusal(path, key) == "format 2, this sevplug reads format 99"


def test_keys_have_to_fit(file: tuple[Path, bytes | None]) -> None:
    path, key = file
    if key is None:
        assert refusal(path, KEY) == "it is under no key, expected no --snapshot-key"
    else:
        assert refusal(path, None) == "it is under a key, expected --snapshot-key"
        assert refusal(path, OTHER) == "it was made under another key, or is damaged"


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path / "nothing", None) == "No such file or directory"
    assert refusal(tmp_path, None) == "Is a directory"
    (tmp_path / "text").write_text("hello")
    assert refusal(tmp_path / "text", None) == "not a snapshot of sevplug"


@pytest.mark.parametrize(
    ("size", "says"), [(15, "expected 16 to 4096 random bytes"), (4097, "expected 16 to 4096 random bytes")]
)
def test_a_key_that_is_none_is_refused_without_a_word_of_it(tmp_path: Path, size: int, says: str) -> None:
    path = tmp_path / "key"
    path.write_bytes(b"s" * size)
    with pytest.raises(SnapshotError) as caught:
        read_snapshot_key(str(path))
    assert str(caught.value) == f"--snapshot-key {path}: {says}"


def test_a_place_that_cannot_be_written_is_one_line(snapshot: Snapshot, tmp_path: Path) -> None:
    with pytest.raises(SnapshotError, match=r"^snapshot .*/nowhere/guest: No such file or directory$"):
        snapshot.save(str(tmp_path / "nowhere" / "guest"))
    with pytest.raises(SnapshotError, match=r": Is a directory$"):
        snapshot.save(str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_pieces_cannot_change_places_nor_be_left_out() -> None:
    salt, header = bytes(32), b"header"
    size = 2 * sealing.PIECE + 16
    pieces = [bytes([number]) * sealing.PIECE for number in (1, 2)] + [b"3" * 16]
    sealed = list(sealing.seal(KEY, salt, header, pieces, size))

    def open_(parts: list[bytes], total: int, head: bytes = header) -> bytes:
        source, target = os.memfd_create("s"), os.memfd_create("t")
        try:
            os.write(source, b"".join(parts))
            sealing.unseal(KEY, salt, head, source, 0, total, target)
            return os.pread(target, total, 0)
        finally:
            os.close(source)
            os.close(target)

    assert open_(sealed, size) == b"".join(pieces)
    for parts, total, head in (
        ([sealed[1], sealed[0], sealed[2]], size, header),
        (sealed[:2], 2 * sealing.PIECE, header),
        (sealed, size, b"another"),
    ):
        with pytest.raises(ValueError):  # noqa: PT011
            open_(parts, total, head)


NAMES = st.text(max_size=5).filter(lambda key: key != "$")
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 300), 1 << 300) | st.text(max_size=20) | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=60)
@given(PLAIN)
def test_plain_data_comes_back_as_it_was(data: Any) -> None:
    assert encoding.decode(*encoding.encode(data)) == data


@given(st.binary(max_size=60), st.binary(max_size=10))
def test_what_is_no_plain_data_is_a_value_error(text: bytes, blob: bytes) -> None:
    try:
        encoding.decode(text, blob)
    except ValueError:
        return


@pytest.mark.parametrize(
    "text", ['{"$":[0,9]}', '{"$":[-1,1]}', '{"$":[0,1],"a":1}', '{"$":"0"}', '{"$":[true,1]}', "[" * 100_000]
)
def test_a_binary_value_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        encoding.decode(text.encode(), b"12345")


@pytest.mark.parametrize("data", [{1: 2}, object(), {"a": {1, 2}}, {"$": 1}])
def test_what_cannot_be_kept_is_refused(data: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        encoding.encode(data)


def test_a_file_takes_the_place_of_another_only_whole(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_text("old")
    with pytest.raises(OSError, match="Bad file"), whole_file(str(target)) as descriptor:
        assert os.write(descriptor, b"half") + os.write(-1, b"")
    assert (target.read_text(), os.listdir(tmp_path)) == ("old", ["file"])
    with whole_file(str(target)) as descriptor:
        os.write(descriptor, b"new")
    assert (target.read_text(), os.listdir(tmp_path)) == ("new", ["file"])


@pytest.mark.parametrize("old", [None, b"the old one"])
def test_killed_while_it_writes_it_leaves_nothing_or_the_old_one(tmp_path: Path, old: bytes | None) -> None:
    target = tmp_path / "guest.snapshot"
    if old is not None:
        target.write_bytes(old)
    script = f"""
        import os, sys
        from sevplug.core.snapshot import container
        from sevplug.core.whole_file import whole_file
        def memory():
            for number in range(1 << 20):
                yield bytes([number & 0xFF]) * (1 << 20)
                if number == 2:
                    print("writing", flush=True)
                    sys.stdin.read(1)
        with whole_file({str(target)!r}) as descriptor:
            container.write(descriptor, {{}}, memory(), 1 << 40, None)
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"writing\n"
        process.send_signal(signal.SIGKILL)
        process.wait(20)
    assert os.listdir(tmp_path) == ([] if old is None else [target.name])
    assert old is None or target.read_bytes() == old
