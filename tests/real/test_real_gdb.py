"""GDB itself looks into the embedded guest, firmware and Linux, and leaves them to run on."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from assembler import assemble
from firmware import run_until, sev_object
from initrds import with_init
from parts import find_image, find_tool

from sevplug.boot import embedded

pytestmark = pytest.mark.real

INIT = """#!/bin/sh
B=/bin/busybox
echo "INIT: userspace reached"
for n in 1 2 3 4 5; do $B true; done
echo "INIT: done"
$B reboot -f
"""


class Guest:
    """A `sevplug run` process that waits for GDB."""

    def __init__(self, folder: Path, options: Sequence[str]) -> None:
        self.folder = folder
        self.serial = folder / "serial.txt"
        self.socket = folder / "gdb.socket"
        command = [
            sys.executable, "-m", "sevplug", "run", "-S", "--gdb", f"unix:{self.socket}",
            "--serial", f"file:{self.serial}", "--timeout", "120", *options,
        ]  # fmt: skip
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        self._until(self.socket.exists)

    def gdb(self, *commands: str) -> subprocess.Popen[str]:
        """GDB with these commands, once it is connected."""
        script = self.folder / "script.gdb"
        lines = ("set pagination off", "set confirm off", f"target remote {self.socket}", *commands)
        script.write_text("\n".join(lines) + "\n")
        program = [find_tool("gdb", "gdb"), "--nx", "--batch", "-x", str(script)]
        return subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def wait_for(self, text: bytes) -> None:
        self._until(lambda: self.serial.exists() and text in self.serial.read_bytes())

    def finish(self) -> str:
        """Wait for the end in order; what the serial port said."""
        _out, told = self.process.communicate(timeout=120)
        assert self.process.returncode == 0, told
        return self.serial.read_text(errors="replace")

    def _until(self, condition: object) -> None:
        deadline = time.monotonic() + 90
        while not condition():  # type: ignore[operator]
            assert self.process.poll() is None, self.process.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


@contextmanager
def waiting(folder: Path, *options: str) -> Iterator[Guest]:
    find_tool("gdb", "gdb")
    guest = Guest(folder, options)
    try:
        yield guest
    finally:
        guest.close()


def said(gdb: subprocess.Popen[str]) -> str:
    """What GDB printed until its end."""
    text, _nothing = gdb.communicate(timeout=100)
    assert gdb.returncode == 0, text
    return text


def values(text: str) -> dict[str, str]:
    """The lines NAME=VALUE that a script printed."""
    return dict(re.findall(r"^([a-z_0-9]+)=(.*)$", text, re.MULTILINE))


def test_the_embedded_guest(tmp_path: Path) -> None:
    """From its reset vector over a breakpoint at its CPUID, by steps and stores, to its end."""
    firmware = embedded.load().firmware
    assert firmware is not None
    code = 0x1_0000_0000 - len(firmware.data)
    cpuid = code + firmware.data.index(b"\x0f\xa2")
    wrmsr = code + firmware.data.index(b"\x0f\x30")  # sets EFER.LME
    with waiting(tmp_path) as guest:
        text = said(
            guest.gdb(
                r'printf "start=%#lx\n", $cs_base + $pc',
                "tbreak *0xfffff000",  # where the reset vector jumps to, in real mode
                "continue",
                r'printf "first=%#lx\n", $cs_base + $pc',
                "delete",
                f"hbreak *{cpuid:#x}",
                "continue",
                r'printf "at=%#lx\n", $pc',
                r'printf "leaf=%#x\n", $rax',
                "x/i $pc",
                "stepi",
                r'printf "behind=%#lx\n", $pc',
                r'printf "level=%#x\n", $eax',
                f"tbreak *{wrmsr:#x}",
                "continue",
                r'printf "before=%#x\n", $efer',
                "stepi",
                r'printf "efer=%#x\n", $efer',
                "while !($efer & 0x400)",
                "stepi",
                "end",
                "stepi 3",
                "info registers cr0 cr3 eflags",
                "set $r15 = 0x1122334455667788",
                r'printf "r15=%#lx\n", $r15',
                "set *(unsigned int *)0x8000 = 0xcafebabe",
                r'printf "memory=%#x\n", *(unsigned int *)0x8000',
                "print $xmm0.uint128",
                "monitor info sev",
                "info threads",
                "delete",
                "detach",
            )
        )
        found = values(text)
        assert found["start"] == "0xfffffff0"
        assert found["first"] == "0xfffff000"
        assert found["at"] == f"{cpuid:#x}"
        assert found["behind"] == f"{cpuid + 2:#x}"
        assert "cpuid" in text
        assert (int(found["before"], 0), int(found["efer"], 0)) == (0, 0x100)
        assert re.search(r"cr0 +0x\w+ +\[ PE .*PG.* \]", text), text
        assert found["r15"] == "0x1122334455667788"
        assert found["memory"] == "0xcafebabe"
        assert "SEV type: sev" in text
        assert "[Inferior 1 (Remote target) detached]" in text
        assert guest.finish().rstrip().endswith("done")


def test_a_run_to_its_end_under_gdb(tmp_path: Path) -> None:
    with waiting(tmp_path) as guest:
        text = said(guest.gdb("continue"))
        assert "sevplug: the guest has ended: shutdown" in text
        assert "[Inferior 1 (Remote target) exited normally]" in text
        guest.finish()


def test_a_reset_state_is_that_of_qemu(tmp_path: Path) -> None:
    """All that GDB shows of a CPU after reset, here and in QEMU's interpreter."""
    (tmp_path / "bios").write_bytes(assemble("hlt"))
    show = ["info registers rax rbx rcx rsi rdi rbp rsp r8 r15 rip cs ss ds es fs gs fs_base gs_base k_gs_base"]
    show += [
        "info registers cr2 cr8 efer",
        "print/x $cr3",
        "print $fctrl",
        "print $fstat",
        "print $mxcsr",
        "print $st0",
    ]
    show += ["print $xmm1.uint128", "print $cr0", "print $cr4", "x/4xb 0xfffffff0"]
    with waiting(tmp_path, "-P", "no:sev", "--bios", str(tmp_path / "bios"), "-m", "16M") as guest:
        here = said(guest.gdb(*show, "kill"))
    socket = tmp_path / "qemu"
    program = [
        find_tool("qemu-system-x86_64", "qemu-system-x86"), "-accel", "tcg", "-cpu", "EPYC", "-S", "-m", "16",
        "-display", "none", "-nodefaults", "-bios", str(tmp_path / "bios"), "-gdb", f"unix:{socket},server=on,wait=off",
    ]  # fmt: skip
    qemu = subprocess.Popen(program, stderr=subprocess.DEVNULL)
    try:
        script = tmp_path / "script.gdb"
        # QEMU that is killed is gone before GDB has heard that it will be.
        own = script.read_text().replace("\nkill\n", "\ndetach\n")
        assert "detach" in own
        script.write_text(own.replace(str(guest.socket), str(socket)))
        deadline = time.monotonic() + 10
        while not socket.exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        there = said(
            subprocess.Popen(
                [find_tool("gdb", "gdb"), "--nx", "--batch", "-x", str(script)],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    finally:
        qemu.kill()
        qemu.wait()
    assert shown(here) == shown(there)
    assert len(shown(here)) > 30


def shown(text: str) -> list[str]:
    """Registers and values; a register's flags in the order of their names, since whose comes first is arbitrary."""
    lines = [line for line in text.splitlines() if re.match(r"[a-z_0-9]+ +0x|\$\d+ = |0x[0-9a-f]+:\t", line)]
    return [" ".join(sorted(line.split())) for line in lines]


def test_firmware(ovmf_amdsev: Path, tmp_path: Path) -> None:
    """A breakpoint where a run without GDB was seen to come along, and Ctrl-C in the midst of it."""
    places: list[int] = []
    run_until(
        b"BdsDxe", ovmf_amdsev, objects=[sev_object()], then=lambda machine: places.append(machine.debug.linear_rip)
    )
    (place,) = places
    with waiting(tmp_path, "--bios", str(ovmf_amdsev)) as guest:
        gdb = guest.gdb(
            "stepi 12",
            r'printf "paging=%d\n", $cr0 >> 31 & 1',
            f"hbreak *{place:#x}",
            "continue",
            r'printf "at=%#lx\n", $pc',
            "x/4i $pc",
            "stepi",
            "stepi",
            "delete",
            r'printf "going on\n"',
            "continue",
            r'printf "stopped=%#lx\n", $pc',
            r'printf "level=%d\n", $cs & 3',
            "bt 1",
            "detach",
        )
        guest.wait_for(b"No bootable option")
        gdb.send_signal(signal.SIGINT)
        text = said(gdb)
        found = values(text)
        assert found["paging"] == "0"
        assert found["at"] == f"{place:#x}"
        assert "Program received signal SIGINT" in text
        assert int(found["stopped"], 0) > 0x1000
        assert guest.process.poll() is None
        time.sleep(0.2)
        assert guest.process.poll() is None


def test_linux(tmp_path: Path) -> None:
    """The kernel's entry, the handler of page faults in its own address space, and on to userspace."""
    kernel = find_image("vmlinuz-6.1-cloud")
    options = ["--kernel", str(kernel), "--initrd", with_init(INIT, tmp_path), "--append", "console=ttyS0"]
    with waiting(tmp_path, *options) as guest:
        gate = "($idtr_base + 14 * 16)"
        gdb = guest.gdb(
            "hbreak *0x1000200",
            "continue",
            r'printf "entry=%#lx\n", $pc',
            r'printf "magic=%.4s\n", (char *)($rsi + 0x202)',
            "stepi",
            "delete",
            "continue",  # until Ctrl-C
            f"set $low = *(unsigned short *){gate}",
            f"set $middle = *(unsigned short *)({gate} + 6)",
            f"set $high = *(unsigned int *)({gate} + 8)",
            "set $handler = (unsigned long)$high << 32 | $middle << 16 | $low",
            "hbreak *$handler",
            "continue",
            r'printf "handler=%#lx\n", $handler',
            r'printf "at=%#lx\n", $pc',
            r'printf "fault=%#lx\n", $cr2',
            r'printf "code=%#lx\n", *(unsigned long *)$rsp',
            "x/6i $pc",
            "set *(unsigned long *)($rsp - 256) = 0x5e5e5e5e",
            r'printf "stack=%#lx\n", *(unsigned long *)($rsp - 256)',
            "stepi",
            "stepi",
            "stepi",
            r'printf "behind=%#lx\n", $pc',
            "delete",
            "detach",
        )
        guest.wait_for(b"Memory Encryption Features active")
        gdb.send_signal(signal.SIGINT)
        text = said(gdb)
        found = values(text)
        assert found["entry"] == "0x1000200", text
        assert found["magic"] == "HdrS"
        assert found["at"] == found["handler"], text
        assert int(found["handler"], 0) >= 0xFFFF_FFFF_8000_0000
        assert int(found["code"], 0) < 0x20
        assert found["stack"] == "0x5e5e5e5e"
        assert int(found["behind"], 0) >= 0xFFFF_FFFF_8000_0000
        assert "INIT: done" in guest.finish()
