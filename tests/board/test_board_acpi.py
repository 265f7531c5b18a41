"""ACPI tables: sums and addresses, the script by which firmware places them, and what a guest does with them."""

from __future__ import annotations

import re
import struct
import subprocess
from pathlib import Path

import pytest
from parts import find_tool

from sevplug.board.acpi import aml, build_tables
from sevplug.board.acpi.linker import fw_cfg_files
from sevplug.board.acpi.tables import describe_board
from sevplug.board.firmware_setup import FirmwareSetup
from sevplug.board.fw_cfg import FwCfg
from sevplug.board.pc import add_pc
from sevplug.core.config import BootImages, Image, MachineConfig

LOW_RAM = 256 << 20
BASE = 0xFFF_0000


def tables_in(memory: bytes, base: int) -> dict[str, bytes]:
    """Signature -> table, followed as an operating system does from an RSDP at ``base``, the start of ``memory``."""

    def at(address: int) -> bytes:
        (length,) = struct.unpack_from("<I", memory, address - base + 4)
        return memory[address - base : address - base + length]

    rsdp = memory[:36]
    assert rsdp[:8] == b"RSD PTR "
    assert sum(rsdp[:20]) & 0xFF == sum(rsdp) & 0xFF == 0
    xsdt = at(struct.unpack_from("<Q", rsdp, 24)[0])
    tables = [xsdt, *(at(address) for (address,) in struct.iter_unpack("<Q", xsdt[36:]))]
    fadt = next(table for table in tables if table[:4] == b"FACP")
    facs, dsdt = struct.unpack_from("<II", fadt, 36)
    assert struct.unpack_from("<Q", fadt, 140) == (dsdt,)
    tables.append(at(dsdt))
    assert all(sum(table) & 0xFF == 0 for table in tables)
    assert facs % 64 == 0
    return {table[:4].decode(): table for table in [*tables, at(facs)]}


def run_script(files: dict[str, bytes]) -> tuple[bytes, int]:
    """Play firmware: place the files with the commands of etc/table-loader, RSDP first; memory and its base."""
    base, place, memory = 0x10_0000, {}, bytearray(0x1_0000)
    # The tables are placed behind the RSDP here, though the script asks for them first.
    for name, offset in (("etc/acpi/rsdp", 0), ("etc/acpi/tables", 0x1000)):
        place[name] = offset
        memory[offset : offset + len(files[name])] = files[name]
    script = files["etc/table-loader"]
    allocated = {}
    for start in range(0, len(script), 128):
        command = script[start : start + 128]
        kind, file = struct.unpack_from("<I56s", command)
        name = file.rstrip(b"\0").decode()
        if kind == 1:
            allocated[name] = struct.unpack_from("<IB", command, 60)
        elif kind == 2:
            target, at, size = struct.unpack_from("<56sIB", command, 60)
            field = slice(place[name] + at, place[name] + at + size)
            value = int.from_bytes(memory[field], "little") + base + place[target.rstrip(b"\0").decode()]
            memory[field] = value.to_bytes(size, "little")
        else:
            assert kind == 3
            at, first, length = struct.unpack_from("<III", command, 60)
            first += place[name]
            memory[place[name] + at] = -sum(memory[first : first + length]) & 0xFF
    assert allocated == {"etc/acpi/tables": (64, 1), "etc/acpi/rsdp": (16, 2)}
    return bytes(memory), base


def test_placed_tables_are_found_and_their_sums_are_zero():
    found = tables_in(build_tables(BASE, LOW_RAM), BASE)
    assert set(found) == {"XSDT", "FACP", "APIC", "DSDT", "FACS"}


@pytest.mark.parametrize("base", [8, -64, 1 << 32])
def test_a_place_that_tables_cannot_have_is_refused(base):
    with pytest.raises(ValueError, match="multiple of 64 below 4 GiB"):
        build_tables(base, LOW_RAM)


def test_firmware_that_follows_the_script_gets_the_same_tables():
    found = tables_in(*run_script(fw_cfg_files(describe_board(LOW_RAM))))
    placed = tables_in(build_tables(BASE, LOW_RAM), BASE)
    assert found["DSDT"] == placed["DSDT"]
    assert found["APIC"] == placed["APIC"]
    assert set(found) == set(placed)


def power_registers(fadt: bytes) -> tuple[int, ...]:
    """The ports of event, control and timer block, as the old fields and the new ones of the FADT have them."""
    old = tuple(struct.unpack_from("<I", fadt, at)[0] for at in (56, 64, 76))
    assert old == tuple(struct.unpack_from("<Q", fadt, at + 4)[0] for at in (148, 172, 208))
    return old


def test_the_tables_name_the_ports_that_firmware_chose(board):
    (fw_cfg,) = (device for device in board.devices if isinstance(device, FwCfg))

    def offered() -> bytes:
        files = {name: fw_cfg.file(name) for name in ("etc/acpi/rsdp", "etc/acpi/tables", "etc/table-loader")}
        return tables_in(*run_script(files))["FACP"]

    assert power_registers(offered()) == (0x600, 0x604, 0x608)
    board.config_write(1, 3, 0x40, 0xB001)
    board.config_write(1, 3, 0x80, 1, 1)
    assert power_registers(offered()) == (0xB000, 0xB004, 0xB008)
    board.reset()
    assert power_registers(offered()) == (0x600, 0x604, 0x608)


def test_the_way_to_switch_off_and_to_restart_is_where_the_tables_say(board):
    board.config_write(1, 3, 0x40, 0x601)
    board.config_write(1, 3, 0x80, 1, 1)
    fadt = tables_in(build_tables(BASE, LOW_RAM), BASE)["FACP"]
    _event, control, _timer = power_registers(fadt)
    command, enable = struct.unpack_from("<IB", fadt, 48)
    board.outb(command, enable)
    assert board.bus.io_read(control, 2) & 1  # SCI_EN
    board.bus.io_write(control, 2, 0x0001)
    assert board.shutdowns == []
    board.bus.io_write(control, 2, 1 << 13)  # the type of _S5 is 0
    assert board.shutdowns == ["the guest switched itself off (ACPI S5)"]
    port, value = struct.unpack_from("<QB", fadt, 120)
    board.outb(port, value)
    assert len(board.resets) == 1


def test_the_power_button_interrupts_a_guest_that_asked_for_it(board):
    board.config_write(1, 3, 0x40, 0x601)
    board.config_write(1, 3, 0x80, 1, 1)
    board.init_pics()
    board.accept_pic()
    board.bus.io_write(0x602, 2, 1 << 8)
    board.private["power"].power_button()
    assert board.interrupt_source.acknowledge() == 0x29
    assert board.bus.io_read(0x600, 2) == 1 << 8


def test_without_firmware_the_board_is_set_up_as_firmware_leaves_it(make_board):
    image = Image(b"kernel", "kernel")
    board = make_board(MachineConfig(memory=16 << 20, boot=BootImages(kernel=image)))
    add_pc(board)
    board.add_device(FirmwareSetup())
    for _ in range(2):
        assert [board.config_read(1, 0, 0x60 + pirq, 1) for pirq in range(4)] == [10, 10, 11, 11]
        assert board.config_read(1, 3, 0x3C, 1) == 9
        assert [board.inb(0x4D0), board.inb(0x4D1)] == [0, 0x0C]
        assert board.bus.io_read(0x604, 2) == 0  # power management is decoded
        assert board.readl(0xFEE00350) & 0x700 == 0x700  # LINT0 is the 8259s' input
        board.reset()
    board.close()


@pytest.mark.parametrize(
    ("value", "encoded"), [(0, "00"), (1, "01"), (2, "0a02"), (256, "0b0001"), (1 << 32, "0e0000000001000000")]
)
def test_integers_have_their_shortest_form(value, encoded):
    assert aml.integer(value).hex() == encoded


@pytest.mark.parametrize("name", ["", "ABCDE", "1A", "AB.", "ab"])
def test_names_that_aml_does_not_have_are_refused(name):
    with pytest.raises(ValueError, match="expected one to four of A-Z"):
        aml.path(name)


@pytest.mark.real
@pytest.mark.parametrize("low_ram", [128 << 20, 3 << 30], ids=["128 MiB", "3 GiB"])
def test_acpicas_compiler_reads_the_tables_and_writes_the_same_namespace(tmp_path: Path, low_ram: int) -> None:
    iasl = find_tool("iasl", "acpica-tools")

    def call(*arguments: str) -> str:
        done = subprocess.run([iasl, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False)
        said = done.stdout + done.stderr
        assert done.returncode == 0, said
        assert not re.search(r"(?i)\b(error|warning|invalid|incorrect checksum)\b(?!s)", said), said
        return said

    for name, table in tables_in(build_tables(BASE, low_ram), BASE).items():
        (tmp_path / f"{name}.dat").write_bytes(table)
        call("-d", f"{name}.dat")
    # -oa: no optimizing, so the bytes can be compared.
    assert "0 Errors, 0 Warnings" in call("-oa", "-p", "again", "DSDT.dsl")
    ours = (tmp_path / "DSDT.dat").read_bytes()
    assert (tmp_path / "again.aml").read_bytes()[36:] == ours[36:]
