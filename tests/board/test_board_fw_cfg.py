"""fw_cfg: the traditional interface, DMA with good and bad descriptors, files, and Linux's images."""

from __future__ import annotations

import struct

import pytest
from kernels import bzimage

from sevplug.board.linux_items import linux_items
from sevplug.board.pc import add_pc
from sevplug.core.config import BootImages, Image, MachineConfig
from sevplug.core.errors import ConfigError

ERROR, READ, SKIP, SELECT, WRITE = 1, 2, 4, 8, 16
DESCRIPTOR = 0x1000


def item(board, number, size):
    board.bus.io_write(0x510, 2, number)
    return bytes(board.inb(0x511) for _ in range(size))


def dma(board, control, length, address, at=DESCRIPTOR):
    """Write a descriptor, start it, and return its control field afterwards."""
    board.memory.write(at, struct.pack(">IIQ", control, length, address))
    if at >> 32:
        board.outl(0x514, int.from_bytes((at >> 32).to_bytes(4, "big"), "little"))
    board.outl(0x518, int.from_bytes((at & 0xFFFF_FFFF).to_bytes(4, "big"), "little"))
    return int.from_bytes(board.memory.read(at, 4), "big")


def number(data):
    return int.from_bytes(data, "little")


def test_the_device_names_itself_and_offers_dma(board):
    assert item(board, 0, 4) == b"QEMU"
    assert item(board, 1, 4) == b"\x03\0\0\0"
    assert [board.inl(0x514).to_bytes(4, "little"), board.inl(0x518).to_bytes(4, "little")] == [b"QEMU", b" CFG"]


def test_reading_past_an_item_and_an_item_that_is_not_there_give_zeros(board):
    assert item(board, 5, 4) == b"\x01\0\0\0"
    assert item(board, 0x3ABC, 4) == bytes(4)


def test_the_memory_size_and_map_are_told(board):
    assert number(item(board, 3, 8)) == 16 << 20
    assert board.private["fw_cfg"].file("etc/e820") == struct.pack("<QQI", 0, 16 << 20, 1)


def test_the_directory_lists_files_by_name(board):
    fw_cfg = board.private["fw_cfg"]
    fw_cfg.add_file("opt/b", b"12345")
    fw_cfg.add_file("aaa", b"1")
    count = int.from_bytes(item(board, 0x19, 4), "big")
    directory = item(board, 0x19, 4 + 64 * count)[4:]
    names = []
    for start in range(0, len(directory), 64):
        size, select, _, name = struct.unpack(">IHH56s", directory[start : start + 64])
        names.append(name.rstrip(b"\0").decode())
        assert item(board, select, size) == fw_cfg.file(names[-1])
    assert names == sorted(names)
    assert {"aaa", "etc/e820", "etc/system-states", "opt/b"} <= {*names}


def test_a_file_that_is_added_again_replaces_the_first(board):
    fw_cfg = board.private["fw_cfg"]
    fw_cfg.add_file("opt/x", b"old")
    count = int.from_bytes(item(board, 0x19, 4), "big")
    fw_cfg.add_file("opt/x", b"newer")
    assert fw_cfg.file("opt/x") == b"newer"
    assert int.from_bytes(item(board, 0x19, 4), "big") == count


@pytest.mark.parametrize("name", ["", "x" * 56])
def test_a_file_name_that_does_not_fit_is_refused(board, name):
    with pytest.raises(ConfigError, match="1 to 55"):
        board.private["fw_cfg"].add_file(name, b"")


def test_dma_selects_and_reads_and_pads_with_zeros(board):
    board.private["fw_cfg"].add_item(0x1234, b"abcdef")
    board.memory.write(0x2000, b"\xff" * 10)
    assert dma(board, 0x1234 << 16 | SELECT | READ, 8, 0x2000) == 0
    assert board.memory.read(0x2000, 10) == b"abcdef\0\0\xff\xff"


def test_dma_skips_and_goes_on(board):
    board.private["fw_cfg"].add_item(0x1234, b"abcdef")
    assert dma(board, 0x1234 << 16 | SELECT | SKIP, 2, 0) == 0
    assert dma(board, READ, 2, 0x2000) == 0
    assert board.memory.read(0x2000, 2) == b"cd"
    assert board.inb(0x511) == ord("e")


def test_dma_writes_only_to_writable_items(board):
    fw_cfg = board.private["fw_cfg"]
    fw_cfg.add_file("etc/writable", bytes(8), writable=True)
    fw_cfg.add_item(0x1234, bytes(8))
    select = int.from_bytes(next(e for e in entries(board) if b"etc/writable" in e)[4:6], "big")
    board.memory.write(0x2000, b"ABCD")
    assert dma(board, select << 16 | SELECT | WRITE, 4, 0x2000) == 0
    assert fw_cfg.file("etc/writable") == b"ABCD\0\0\0\0"
    assert dma(board, WRITE, 5, 0x2000) == ERROR  # past the end
    assert dma(board, 0x1234 << 16 | SELECT | WRITE, 4, 0x2000) == ERROR
    assert fw_cfg.item(0x1234) == bytes(8)


def entries(board):
    count = int.from_bytes(item(board, 0x19, 4), "big")
    directory = item(board, 0x19, 4 + 64 * count)[4:]
    return [directory[start : start + 64] for start in range(0, len(directory), 64)]


@pytest.mark.parametrize("address", [0xFFFF_FFFF_FFFF_FFFC, 0xF000_0000, (16 << 20) - 2])
def test_a_dma_buffer_outside_memory_sets_the_error_bit(board, address):
    before = board.memory.read((16 << 20) - 2, 2)
    assert dma(board, 0 << 16 | SELECT | READ, 4, address) == ERROR
    assert board.memory.read((16 << 20) - 2, 2) == before


def test_a_huge_length_is_refused_and_not_carried_out(board):
    assert dma(board, SELECT | READ, 0xFFFF_FFFF, 0x2000) == ERROR


@pytest.mark.parametrize("at", [(16 << 20) - 4, 0xF000_0000, 0xFFFF_FFFF_FFFF_FFFF, 1 << 40])
def test_a_descriptor_outside_memory_is_survived_and_marked_where_it_can_be(board, at):
    board.memory.write(at, struct.pack(">IIQ", SELECT | READ, 4, 0x2000))
    board.memory.write(0x2000, b"keep")
    board.outl(0x514, int.from_bytes((at >> 32).to_bytes(4, "big"), "little"))
    board.outl(0x518, int.from_bytes((at & 0xFFFF_FFFF).to_bytes(4, "big"), "little"))
    assert board.memory.read(0x2000, 4) == b"keep"
    if at < 16 << 20:
        assert int.from_bytes(board.memory.read(at, 4), "big") == ERROR


def test_the_kernel_is_split_into_setup_and_body(make_board):
    kernel = bzimage()
    firmware = Image(bytes(4096), "firmware")
    boot = BootImages(firmware, None, Image(kernel, "bzImage"), Image(b"I" * 5000, "initrd"), "console=ttyS0")
    machine = make_board(MachineConfig(memory=64 << 20, boot=boot))
    add_pc(machine)
    assert number(item(machine, 0x17, 4)) == 2048
    assert item(machine, 0x18, 2048) + item(machine, 0x11, 1600) == kernel
    assert [number(item(machine, key, 4)) for key in (0x16, 0x13, 0x07, 0x08)] == [0x10000, 0x20000, 0x100000, 1600]
    assert item(machine, 0x15, number(item(machine, 0x14, 4))) == b"console=ttyS0\0"
    initrd_at, initrd_size = number(item(machine, 0x0A, 4)), number(item(machine, 0x0B, 4))
    assert initrd_size == 5000
    assert initrd_at % 4096 == 0
    assert initrd_at + initrd_size < (64 << 20) - 0x28000 < initrd_at + 5000 + 8192
    assert item(machine, 0x12, 5000) == b"I" * 5000
    machine.close()


def loaded(tmp_path, make_board, **config):
    """A board whose kernel, with set-up and body, and initrd are files."""
    (tmp_path / "kernel").write_bytes(bzimage())
    (tmp_path / "initrd").write_bytes(b"I" * 5000)
    kernel, initrd = (Image.load(tmp_path / name, name) for name in ("kernel", "initrd"))
    boot = BootImages(firmware=Image(bytes(4096), "firmware"), kernel=kernel, initrd=initrd)
    machine = make_board(MachineConfig(memory=64 << 20, boot=boot, **config))
    add_pc(machine)
    return machine


def rewrite(tmp_path):
    (tmp_path / "kernel").write_bytes(bytes(reversed(bzimage())))
    (tmp_path / "initrd").write_bytes(b"J" * 5000)


def test_an_image_is_kept_until_all_of_it_was_read(tmp_path, make_board):
    machine = loaded(tmp_path, make_board)
    rewrite(tmp_path)
    assert item(machine, 0x18, 2047) + item(machine, 0x18, 2048)[-1:] + item(machine, 0x11, 1600) == bzimage()
    assert dma(machine, 0x12 << 16 | SELECT | READ, 4999, 0x2000) == 0
    assert machine.memory.read(0x2000, 5000) == b"I" * 4999 + b"\0"
    assert item(machine, 0x12, 5000) == b"I" * 5000
    machine.close()


@pytest.mark.parametrize("changed", [False, True])
def test_an_image_that_is_read_once_more_is_what_it_was_or_is_refused(tmp_path, make_board, changed):
    machine = loaded(tmp_path, make_board)
    for number, size in ((0x18, 2048), (0x11, 1600), (0x12, 5000), (0, 4)):
        item(machine, number, size)
    if not changed:
        assert item(machine, 0x18, 2048) + item(machine, 0x11, 1600) == bzimage()
        assert item(machine, 0x12, 5000) == b"I" * 5000
    else:
        rewrite(tmp_path)
        for number, name in ((0x18, "kernel"), (0x11, "kernel"), (0x12, "initrd")):
            with pytest.raises(ConfigError, match=f"{name} {tmp_path}/{name}: the file was changed while the guest"):
                item(machine, number, 1)
    machine.close()


def test_a_guest_that_may_start_over_gets_its_images_from_memory(tmp_path, make_board):
    machine = loaded(tmp_path, make_board, reboot=True)
    for _start in range(2):
        assert item(machine, 0x18, 2048) + item(machine, 0x11, 1600) + item(machine, 0, 4) == bzimage() + b"QEMU"
        rewrite(tmp_path)
    machine.close()


def test_which_images_were_read_goes_with_a_snapshot(tmp_path, make_board):
    machine = loaded(tmp_path, make_board)
    fw_cfg = machine.private["fw_cfg"]
    item(machine, 0x18, 2048)
    item(machine, 0x11, 1600)
    before = fw_cfg.save()
    item(machine, 0x12, 5000)
    item(machine, 0, 4)
    after = fw_cfg.save()
    fw_cfg.load(before)
    assert fw_cfg.save() == before
    assert item(machine, 0x12, 5000) == b"I" * 5000
    fw_cfg.load(after)
    assert fw_cfg.save() == after
    rewrite(tmp_path)
    with pytest.raises(ConfigError, match=r"initrd .* was changed"):
        item(machine, 0x12, 1)
    machine.close()


@pytest.mark.parametrize(
    ("boot", "message"),
    [
        (BootImages(kernel=Image(b"ELF" * 1000, "vmlinux")), "kernel vmlinux: not a bzImage"),
        (BootImages(kernel=Image(b"MZ", "k")), "kernel k: not a bzImage"),
        (BootImages(kernel=Image(bzimage()[:-17], "k")), "kernel k: truncated, 3631 bytes, expected at least 3633"),
        (BootImages(kernel=Image(bzimage()[:1500], "k")), "kernel k: truncated"),
        (BootImages(initrd=Image(b"x", "i")), "--initrd is only allowed with --kernel"),
        (BootImages(cmdline="quiet"), "--append is only allowed with --kernel"),
        (
            BootImages(kernel=Image(bzimage(), "k"), cmdline="x" * 2048),
            "command line (append): 2048 bytes, expected at most the 2047 that kernel k takes",
        ),
        (BootImages(kernel=Image(bzimage(), "k"), initrd=Image(bytes(1 << 24), "i")), "initrd i: 16777216 bytes"),
        (BootImages(kernel=Image(bzimage(body=bytes(1 << 24)), "k")), "kernel k: 16777216 bytes do not fit"),
    ],
)
def test_images_that_cannot_be_booted_are_named(boot, message):
    with pytest.raises(ConfigError) as failure:
        linux_items(boot, 16 << 20)
    assert str(failure.value).startswith(message)


def test_an_old_kernel_is_placed_low():
    boot = BootImages(kernel=Image(bzimage(protocol=0x201, loadflags=0), "k"))
    items = linux_items(boot, 16 << 20)
    assert [number(items[key]) for key in (0x16, 0x07)] == [0x90000, 0x10000]
