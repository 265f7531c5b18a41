"""Guest memory in files: through page tables, by guest-physical address, and as an ELF core."""

from __future__ import annotations

import os
import shutil
import stat
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from qmp_support import MIB, Client, FakeMachine, real_machine, serving

from sevplug.plugins.qmp.errors import QmpError
from sevplug.plugins.qmp.whole_file import whole_file


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[FakeMachine]:
    with serving(f"unix:{tmp_path}/q") as machine:
        machine.memory.write(0x2000, bytes(range(256)) * 32)
        yield machine


@pytest.fixture
def client(machine: FakeMachine, tmp_path: Path) -> Iterator[Client]:
    with Client(tmp_path / "q").negotiate() as client:
        yield client


def test_physical_memory_is_saved(client: Client, tmp_path: Path) -> None:
    assert client.execute("pmemsave", val=0x2001, size=5000, filename=str(tmp_path / "f")) == {}
    assert (tmp_path / "f").read_bytes() == (bytes(range(256)) * 32)[1:5001]
    assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == 0o600


def test_where_nothing_is_ones_are_saved(client: Client, tmp_path: Path) -> None:
    client.execute("pmemsave", val=MIB - 1, size=3, filename=str(tmp_path / "f"))
    assert (tmp_path / "f").read_bytes() == b"\0\xff\xff"


def test_nothing_is_a_size_too(client: Client, tmp_path: Path) -> None:
    client.execute("pmemsave", val=0, size=0, filename=str(tmp_path / "f"))
    assert (tmp_path / "f").read_bytes() == b""


def test_linear_memory_is_saved_page_by_page(client: Client, machine: FakeMachine, tmp_path: Path) -> None:
    high = 0xFFFF_8000_0000_0000
    machine.engine.pages = {high: 0x3000, high + 0x1000: 0x2000}
    client.execute("memsave", val=high + 0xFF0 - (1 << 64), size=32, filename=str(tmp_path / "f"))
    assert (tmp_path / "f").read_bytes() == bytes(range(0xF0, 0x100)) + bytes(range(16))


def test_a_page_that_is_not_mapped_leaves_no_file(client: Client, machine: FakeMachine, tmp_path: Path) -> None:
    machine.engine.pages = {0x1000: 0x2000}
    text = client.refusal("memsave", val=0x1000, size=8192, filename=str(tmp_path / "f"))
    assert text == "Invalid addr 0x0000000000001000/size 8192 specified"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["q"]


@pytest.mark.parametrize(("val", "size"), [(-1, 1), (0, -1), (1 << 32, 1), (0, (1 << 63) - 1)])
def test_an_impossible_range_is_refused(client: Client, tmp_path: Path, val: int, size: int) -> None:
    text = client.refusal("pmemsave", val=val, size=size, filename=str(tmp_path / "f"))
    assert text == f"Invalid addr 0x{val % (1 << 64):016x}/size {size} specified"
    assert not (tmp_path / "f").exists()


def test_a_file_that_cannot_be_opened_is_told_in_qemus_words(client: Client, tmp_path: Path) -> None:
    for name, reason in (
        (f"{tmp_path}/no/f", "No such file or directory"),
        (str(tmp_path), "Is a directory"),
        ("", "No such file or directory"),
        (f"{tmp_path}/a\0b", "Invalid argument"),
    ):
        assert client.refusal("pmemsave", val=0, size=1, filename=name) == f"Could not open '{name}': {reason}"


def test_there_is_one_cpu(client: Client, tmp_path: Path) -> None:
    for command, arguments in (
        ("memsave", {"val": 0, "size": 0, "filename": str(tmp_path / "f")}),
        ("human-monitor-command", {"command-line": "info version"}),
    ):
        text = client.refusal(command, **arguments, cpu_index=1)
        assert text == "Parameter 'cpu-index' expects a CPU number"
        client.execute(command, **arguments, cpu_index=0)


def test_an_unfinished_file_does_not_replace_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("old")

    def half() -> None:
        with whole_file(str(tmp_path / "f"), "?") as file:
            file.write(b"new")
            raise QmpError("no more")

    with pytest.raises(QmpError, match="no more"):
        half()
    assert (tmp_path / "f").read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["f"]


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(QmpError) as error, whole_file(str(tmp_path / "f"), "writing failed"):
        raise OSError(28, "No space left on device")
    assert str(error.value) == "writing failed: No space left on device"
    assert list(tmp_path.iterdir()) == []


def test_a_link_is_followed_and_a_device_is_written_to(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with whole_file(str(tmp_path / "link"), "?") as file:
        file.write(b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"
    (tmp_path / "null").symlink_to("/dev/null")
    with whole_file(str(tmp_path / "null"), "?") as file:
        file.write(b"new")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_a_relative_name_is_in_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with whole_file("f", "?") as file:
        file.write(b"here")
    assert (tmp_path / "f").read_bytes() == b"here"


def elf_segments(data: bytes) -> list[tuple[int, int, int, int]]:
    """(type, file offset, physical address, size) of each program header."""
    offset, size, count = struct.unpack_from("<Q", data, 32)[0], *struct.unpack_from("<HH", data, 54)
    found = []
    for number in range(count):
        kind, _flags, start, virtual, physical, in_file, in_memory, _align = struct.unpack_from(
            "<IIQQQQQQ", data, offset + number * size
        )
        assert virtual == 0
        assert in_file == in_memory
        found.append((kind, start, physical, in_file))
    return found


def test_a_dump_holds_all_ram_and_the_registers(client: Client, machine: FakeMachine, tmp_path: Path) -> None:
    assert client.execute("dump-guest-memory", paging=False, protocol=f"file:{tmp_path}/core") == {}
    data = (tmp_path / "core").read_bytes()
    assert data[:7] == b"\x7fELF\x02\x01\x01"
    assert struct.unpack_from("<HH", data, 16) == (4, 62)
    (note_kind, note, _, note_size), (load_kind, load, gpa, size) = elf_segments(data)
    assert (note_kind, load_kind, gpa, size) == (4, 1, 0, MIB)
    assert load + size == len(data)
    assert data[load + 0x2000 : load + 0x2100] == bytes(range(256))
    name_size, status_size, kind = struct.unpack_from("<III", data, note)
    assert (name_size, status_size, kind, data[note + 12 : note + 17]) == (5, 336, 1, b"CORE\0")
    assert note_size == 12 + 8 + 336
    registers = struct.unpack_from("<27Q", data, note + 20 + 112)
    assert [registers[place].to_bytes(8, "little").rstrip(b"\0") for place in (0, 4, 10, 16, 18, 19)] == [
        *(b"r15", b"rbp", b"rax", b"rip", b"rflags", b"rsp"),
    ]


def test_a_dump_can_be_of_a_part(client: Client, tmp_path: Path) -> None:
    client.execute("dump-guest-memory", paging=False, protocol=f"file:{tmp_path}/core", begin=0x2000, length=0x100)
    data = (tmp_path / "core").read_bytes()
    (kind, start, gpa, size) = elf_segments(data)[1]
    assert (kind, gpa, size) == (1, 0x2000, 0x100)
    assert data[start:] == bytes(range(256))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({}, "Parameter 'paging' is missing"),
        ({"paging": 0, "protocol": "file:f"}, "Invalid parameter type for 'paging', expected: boolean"),
        ({"paging": False}, "Parameter 'protocol' is missing"),
        ({"paging": False, "protocol": "f"}, "parameter 'protocol' must start with 'file:' or 'fd:'"),
        ({"paging": False, "protocol": "fd:mem"}, "File descriptor named 'mem' has not been found"),
        ({"paging": False, "protocol": "file:f", "begin": 0}, "Parameter 'length' is missing"),
        ({"paging": False, "protocol": "file:f", "length": 1}, "Parameter 'begin' is missing"),
        (
            {"paging": False, "protocol": "file:f", "begin": 0, "length": 0},
            "Parameter 'length' expects a non-zero size",
        ),
        (
            {"paging": False, "protocol": "file:f", "begin": MIB, "length": MIB},
            "dump: no guest memory to dump",
        ),
        (
            {"paging": False, "protocol": "file:f", "format": "elf32"},
            "Parameter 'format' does not accept value 'elf32'",
        ),
        ({"paging": False, "protocol": "file:f", "format": "kdump-lzo"}, "kdump-lzo is not available now"),
        (
            {"paging": True, "protocol": "file:f", "format": "kdump-lzo"},
            "kdump-compressed format doesn't support paging or filter",
        ),
        (
            {"paging": True, "protocol": "file:f"},
            "Parameter 'paging' expects false: only guest-physical addresses can be dumped",
        ),
        (
            {"paging": False, "protocol": "file:f", "detach": True},
            "Parameter 'detach' expects false: there are no dumps in the background",
        ),
        ({"paging": False, "protocol": "file:/no/f"}, "Could not open '/no/f': No such file or directory"),
    ],
)
def test_a_dump_that_cannot_be_made_is_refused(client: Client, arguments: dict[str, object], text: str) -> None:
    assert client.refusal("dump-guest-memory", **arguments) == text


def test_a_dump_of_a_real_machine_is_a_core_file_to_readelf(tmp_path: Path) -> None:
    readelf = shutil.which("readelf")
    if readelf is None:
        pytest.skip("readelf is missing: install the Debian package binutils")
    with real_machine(f"unix:{tmp_path}/q"), Client(tmp_path / "q").negotiate() as client:
        client.execute("dump-guest-memory", paging=False, protocol=f"file:{tmp_path}/core")
        client.execute("memsave", val=0xFFF0, size=16, filename=str(tmp_path / "page"))
    shown = subprocess.run(
        [readelf, "--wide", "--headers", "--notes", str(tmp_path / "core")],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "LC_ALL": "C"},
    )
    assert shown.stderr == ""
    assert "CORE (Core file)" in shown.stdout
    assert "NT_PRSTATUS (prstatus structure)" in shown.stdout
    assert shown.stdout.count("  LOAD  ") == 2  # RAM and the firmware below 4 GiB
    assert (tmp_path / "page").read_bytes() == bytes(16)


def test_the_guest_runs_on_after_its_memory_was_saved(tmp_path: Path) -> None:
    with real_machine(f"unix:{tmp_path}/q"), Client(tmp_path / "q").negotiate() as client:
        client.execute("cont")
        client.execute("pmemsave", val=0xFFFF_FFF0, size=16, filename=str(tmp_path / "f"))
        assert client.execute("query-status") == {"status": "running", "running": True}
    assert (tmp_path / "f").read_bytes() == b"\xeb\xfe" + b"\xf4" * 14
