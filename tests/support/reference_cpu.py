"""One image run twice, here and in QEMU's TCG, with what it said on port 0xE9."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import attrs
from assembler import assemble
from guests import MARK
from machines import machine_with
from parts import missing

from sevplug.core.bus import Device
from sevplug.core.hookspecs import hookimpl
from sevplug.core.machine import Machine
from sevplug.core.result import FAULT, SHUTDOWN

PORT = 0xE9


class DebugConsole(Device):
    """Collects the bytes written to port 0xE9."""

    def __init__(self) -> None:
        self.data = bytearray()

    def attach(self, machine: Machine) -> None:
        machine.bus.claim_ports(PORT, 1, None, lambda _port, _size, value: self.data.append(value), "debug console")


class DebugConsolePlugin:
    """Brings the console."""

    name = "debug-console"

    def __init__(self) -> None:
        self.console = DebugConsole()

    @hookimpl
    def add_devices(self, machine: Machine) -> None:
        machine.add_device(self.console)


@attrs.frozen
class Transcript:
    """What a guest reported.

    ``end`` is "shutdown" or "fault" (a triple fault); ``reports`` has the 32-bit words of each probe, in hex.
    """

    end: str
    reports: list[str]


def compare(mode: Callable[..., str], *probes: str, **options: int) -> None:
    """Assert that every probe of a guest in ``mode`` reports the same here and in QEMU."""
    source = mode(*probes, **options)
    expected, found = run_in_qemu(source), run_here(source)
    assert len(expected.reports) == len(probes), f"QEMU stopped at {probes[len(expected.reports) - 1]!r}"
    named = [f"{probe} -> {report}" for probe, report in zip(probes, expected.reports, strict=True)]
    assert [f"{probe} -> {report}" for probe, report in zip(probes, found.reports, strict=False)] == named
    assert found.end == expected.end


def run_here(source: str, *plugins: object, timeout: float = 5.0) -> Transcript:
    """The guest on the machine under test."""
    console = DebugConsolePlugin()
    with machine_with(assemble(source), console, *plugins) as (machine, _board):
        run = machine.run(timeout=timeout)
    said = bytes(console.console.data)
    assert run.result in (SHUTDOWN, FAULT), (run, _reports(said))
    return Transcript(run.result, _reports(said))


def run_in_qemu(source: str, timeout: float = 20.0) -> Transcript:
    """The same bytes on QEMU's interpreter of the same family of CPU; skips without the program."""
    program = shutil.which("qemu-system-x86_64")
    if program is None:
        missing("qemu-system-x86_64 is missing: install the Debian package qemu-system-x86")
    image = assemble(source)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        (path / "guest.bin").write_bytes(image)
        command = [
            program, "-accel", "tcg", "-cpu", "EPYC", "-machine", "pc", "-m", "16", "-bios", "guest.bin", "-nodefaults",
            "-display", "none", "-no-reboot", "-debugcon", "file:said",
            "-device", "isa-debug-exit,iobase=0xf4,iosize=4",
        ]  # fmt: skip
        done = subprocess.run(command, cwd=path, timeout=timeout, check=False, capture_output=True, text=True)
        assert done.returncode in (0, 0x55 << 1 & 0xFF | 1), done.stderr
        end = FAULT if done.returncode == 0 else SHUTDOWN
        return Transcript(end, _reports((path / "said").read_bytes()))


def _reports(data: bytes) -> list[str]:
    """The words behind each probe's mark."""
    reports: list[list[str]] = []
    for at in range(0, len(data), 4):
        word = int.from_bytes(data[at : at + 4], "little")
        if word & 0xFFFF0000 == MARK:
            reports.append([])
        else:
            reports[-1].append(f"{word:08x}")
    return [" ".join(words) for words in reports]
