"""The command lines of the two peers: sevplug as users run it, QEMU's TCG with no more board than a guest needs."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import attrs
from images import how_to_get, look_for

MEMORY = "256M"
COMMAND_LINE = "console=ttyS0"
USERSPACE = b"INIT: userspace reached"
QEMU = "qemu-system-x86_64"
# Eight times the embedded guest.
MATRIX = Path(__file__).with_name("matrix.toml")
MATRIX_GUESTS = 8
# OVMF.amdsev.fd takes a kernel only from a SEV guest, so QEMU has the generic build of the same sources.
_GENERIC_FIRMWARE = Path("/usr/share/ovmf/OVMF.fd")
_SEV_FIRMWARE = "OVMF.amdsev.fd"
_SEV_OBJECT = "sev-emulated,id=sev0,cbitpos=51,reduced-phys-bits=1"


class Missing(Exception):
    """Something that the bench needs is not there; one line that says how to get it."""


@attrs.frozen
class Guest:
    """What both peers boot: images by their names, and whether firmware comes first."""

    kernel: str
    initrd: str
    firmware: bool


def sevplug_program() -> list[str]:
    """The console script beside this Python; `Missing` when it is not installed there."""
    script = Path(sys.executable).with_name("sevplug")
    if not script.is_file():
        raise Missing(f"{script} is missing: install the project with this Python (pip install .)")
    return [str(script)]


def sevplug_boot(guest: Guest, *, encrypted: bool = True) -> list[str]:
    """Arguments of sevplug for ``guest`` as a SEV guest; with firmware, with the table of kernel hashes."""
    hashes = ",kernel-hashes=on" if guest.firmware else ""
    memory = "" if encrypted else ",encrypt-memory=off"
    firmware = ["--bios", _image(_SEV_FIRMWARE)] if guest.firmware else []
    return ["run", *firmware, *_linux(guest, "--"), "-m", MEMORY, "--object", _SEV_OBJECT + hashes + memory]


def sevplug_matrix(jobs: int) -> list[str]:
    """`MATRIX`'s embedded guests, ``jobs`` at a time."""
    return [*sevplug_program(), "matrix", str(MATRIX), "-j", str(jobs)]


def sevplug_runs(count: int) -> list[str]:
    """As many embedded guests, each a command of a shell's."""
    script = f"for guest in $(seq {count}); do {shlex.quote(sevplug_program()[0])} run </dev/null; done"
    return ["sh", "-e", "-c", script]


def qemu_boot(guest: Guest) -> list[str]:
    """QEMU's command line for the same kernel and initrd: through generic OVMF, or through SeaBIOS' ``-kernel``."""
    firmware = ["-bios", str(_generic_firmware())] if guest.firmware else []
    return [*_qemu(), *firmware, *_linux(guest, "-"), "-m", MEMORY, "-serial", "stdio", "-no-reboot"]


def qemu_start() -> list[str]:
    """QEMU with a stopped guest and its monitor on standard input."""
    return [*_qemu(), "-m", MEMORY, "-S", "-monitor", "stdio"]


def qemu_version() -> str:
    """QEMU's version number; `Missing` when it is not installed."""
    found = subprocess.run([*_qemu(), "--version"], capture_output=True, text=True, check=True).stdout
    return found.split("version ")[1].split()[0]


def find_program(name: str, package: str) -> str:
    """The path of a program; `Missing` with the Debian package that brings it."""
    path = shutil.which(name)
    if path is None:
        raise Missing(f"{name} is missing: install the Debian package {package} (scripts/install-real-parts does)")
    return path


def _qemu() -> list[str]:
    return [find_program(QEMU, "qemu-system-x86"), "-accel", "tcg", "-nodefaults", "-display", "none"]


def _linux(guest: Guest, dash: str) -> list[str]:
    kernel, initrd = _image(guest.kernel), _image(guest.initrd)
    return [f"{dash}kernel", kernel, f"{dash}initrd", initrd, f"{dash}append", COMMAND_LINE]


def _image(name: str) -> str:
    path = look_for(name)
    if path is None:
        raise Missing(how_to_get(name))
    return str(path)


def _generic_firmware() -> Path:
    if not _GENERIC_FIRMWARE.is_file():
        raise Missing(
            f"{_GENERIC_FIRMWARE} is missing: install the Debian package ovmf (scripts/install-real-parts does)"
        )
    return _GENERIC_FIRMWARE
