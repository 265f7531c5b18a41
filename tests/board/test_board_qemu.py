"""The same accesses on QEMU's PC and on ours give the same answers; QEMU is stopped, and driven through qtest."""

from __future__ import annotations

import random
import subprocess

import pytest
from parts import find_tool

pytestmark = pytest.mark.real

SUFFIX = {1: "b", 2: "w", 4: "l"}


class QTest:
    """A stopped QEMU whose devices can be asked (QEMU's docs/devel/testing/qtest.rst)."""

    def __init__(self, program: str) -> None:
        self._process = subprocess.Popen(
            [
                program,
                "-machine",
                "pc",
                "-accel",
                "tcg",
                "-S",
                "-m",
                "16M",
                "-display",
                "none",
                "-nodefaults",
                "-serial",
                "null",
                "-qtest",
                "stdio",
                "-qtest-log",
                "none",
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            bufsize=1,
        )

    def command(self, text: str) -> list[str]:
        self._process.stdin.write(text + "\n")
        while True:
            answer = self._process.stdout.readline().split()
            if not answer:
                raise EOFError(f"QEMU ended at {text!r}")
            if answer[0] == "OK":
                return answer[1:]

    def io_read(self, port: int, size: int) -> int:
        return int(self.command(f"in{SUFFIX[size]} {port:#x}")[0], 16)

    def io_write(self, port: int, size: int, value: int) -> None:
        self.command(f"out{SUFFIX[size]} {port:#x} {value:#x}")

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def qemu():
    machine = QTest(find_tool("qemu-system-x86_64", "qemu-system-x86"))
    yield machine
    machine.close()


def pairs_that_differ(qemu, board, script, mask=lambda port: 0xFFFF_FFFF):
    """Play ``script`` on both: (port, size) reads, (port, size, value) writes."""
    different = []
    for step, (port, size, *value) in enumerate(script):
        if value:
            qemu.io_write(port, size, value[0])
            board.bus.io_write(port, size, value[0])
            continue
        theirs, ours = (machine.io_read(port, size) & mask(port) for machine in (qemu, board.bus))
        if theirs != ours:
            different.append((step, f"{port:#x}: QEMU {theirs:#x}, ours {ours:#x}"))
    return different


def random_accesses(rng, ports, count, allowed=lambda port, value: True):
    script = []
    for _ in range(count):
        port, value = rng.choice(ports), rng.randrange(256)
        if rng.random() < 0.4:
            script.append((port, 1))
        elif allowed(port, value):
            script.append((port, 1, value))
    return script


@pytest.mark.parametrize("seed", range(2))
def test_the_8259_pair_under_random_accesses(qemu, board, seed):
    script = [(0x20, 1, 0x11), *((0x21, 1, value) for value in (0x20, 4, 1))]
    script += [(0xA0, 1, 0x11), *((0xA1, 1, value) for value in (0x28, 2, 1))]
    script += random_accesses(random.Random(seed), [0x20, 0x21, 0xA0, 0xA1, 0x4D0, 0x4D1], 1500)
    assert pairs_that_differ(qemu, board, script) == []


@pytest.mark.parametrize("seed", range(2))
def test_the_serial_port_in_loopback_under_random_accesses(qemu, board, seed):
    def allowed(port, value):
        return port != 0x3FC or value & 0x10

    script = [(0x3FC, 1, 0x10), *random_accesses(random.Random(seed), range(0x3F8, 0x400), 1500, allowed)]
    assert pairs_that_differ(qemu, board, script) == []


def test_the_counters_of_the_pit(qemu, board):
    rng = random.Random(1)
    script = []
    for _ in range(300):
        number, access, mode = rng.randrange(3), rng.randrange(1, 4), rng.choice((0, 2, 3, 4))
        script.append((0x43, 1, number << 6 | access << 4 | mode << 1))
        script += [(0x40 + number, 1, rng.randrange(256)) for _ in range(2 if access == 3 else 1)]
        if mode in (0, 3):
            script.append((0x43, 1, 0xC0 | 2 << number | rng.choice((0, 0x10, 0x20))))
        else:
            script.append((0x43, 1, number << 6))
        script += [(0x40 + number, 1)] * 6
        if number == 2 and mode in (0, 3):
            script += [(0x61, 1, rng.randrange(4)), (0x61, 1), (0x61, 1)]
    assert pairs_that_differ(qemu, board, script) == []


def test_the_keyboard_controller_and_its_keyboard(qemu, board):
    rng = random.Random(1)
    script = []
    for _ in range(300):
        command = rng.choice((None, 0x20, 0xAA, 0xA9, 0xAB, 0xC0, 0xD0, 0xA7, 0xA8, 0xAD, 0xAE, 0x60, 0xD2, 0xD3))
        if command is None:
            script.append((0x60, 1, rng.choice((0xFF, 0xF2, 0xEE, 0xED, 0xF0, 0xF4, 0xF5, 0xF6, 0xF3, 0, 1, 2, 3))))
        else:
            script.append((0x64, 1, command))
        if command in (0x60, 0xD2, 0xD3):
            script.append((0x60, 1, rng.choice((0x41, 0x47, 0x03, 0x65))))
        script += [(0x64, 1), (0x60, 1)] * 4
    # QEMU never clears bit 3 (the last write was a command); the chip does.
    assert pairs_that_differ(qemu, board, script, lambda port: 0xF7 if port == 0x64 else 0xFF) == []


def test_configuration_space_at_power_on_and_what_can_be_written(qemu, board):
    # QEMU has an SMBus host, and tells in 0x60..0x67 which of its serial and parallel ports are there.
    left_out = {(1 << 3 | 3, offset) for offset in (0x60, 0x64, 0x90, 0xD0)}
    script = []
    for place in (0, 1 << 3, 1 << 3 | 3, 2 << 3):
        for offset in range(0, 256, 4):
            if (place, offset) in left_out:
                continue
            script.append((0xCF8, 4, 1 << 31 | place << 8 | offset))
            script += [(0xCFC, 4), (0xCFD, 1), (0xCFE, 2)]
            if offset != 0x80:
                script += [(0xCFC, 4, 0xFFFF_FFFF), (0xCFC, 4), (0xCFC, 4, 0), (0xCFC, 4)]
    assert pairs_that_differ(qemu, board, script) == []


def test_cmos_tells_the_same_memory(qemu, board):
    script = []
    for index in (0x0A, 0x0B, 0x0D, *range(0x15, 0x19), 0x30, 0x31, 0x34, 0x35, 0x5B, 0x5C, 0x5D, 0x5F):
        script += [(0x70, 1, index), (0x71, 1)]
    assert pairs_that_differ(qemu, board, script) == []


def test_the_numbered_items_of_fw_cfg(qemu, board):
    script = []
    for key in (0, 1, 3, 4, 5, 0x0F, 0x8002, 0x3ABC):
        script += [(0x510, 2, key), *[(0x511, 1)] * 10]
    script += [(0x514, 4), (0x518, 4)]
    assert pairs_that_differ(qemu, board, script) == []
