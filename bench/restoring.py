"""A booted guest that goes back to where it was, and its next line of output: here and in QEMU."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
from figures import Goal, Row
from measuring import in_turn
from peers import find_image_of, find_program, qemu_booted
from timing import PATIENCE, NotBooted, read_until

from sevplug.board.console import Console
from sevplug.core.config import BootImages, Image, MachineConfig, ObjectSpec
from sevplug.core.machine import Machine
from sevplug.core.plugins import Selection, load_plugins

_KERNEL, _INITRD, _COMMAND_LINE = "bzImage-coco", "initrd-coco.cpio.gz", "console=ttyS0 sevplug.end=shell"
_PROMPT, _QUESTION, _ANSWER = b"/ # ", b"echo $((6*7))\r", b"\r\n42\r\n"
_MIB = 256
_SEV = ObjectSpec("sev-emulated", "sev0", {"cbitpos": "51", "reduced-phys-bits": "1"})
_MONITOR = b"(qemu) "
_Restore = Callable[[], float]


@attrs.frozen
class Restores:
    """Seconds from the order to go back until the guest has answered a question of its shell."""

    name: str
    goal: Goal | None = None

    def check(self) -> None:
        """Find the images and QEMU's programs."""
        find_image_of(_KERNEL)
        find_image_of(_INITRD)
        find_program("qemu-img", "qemu-utils")

    def run(self, rounds: int) -> Row:
        """Both, one after the other: each has its guest booted."""
        with _here() as ours, _there() as theirs:
            here, there = in_turn(rounds, ours, theirs)
        return Row(self.name, here, there, "QEMU: loadvm", goal=self.goal)


@contextlib.contextmanager
def _here() -> Iterator[_Restore]:
    images = [Image.load(find_image_of(name), name) for name in (_KERNEL, _INITRD)]
    config = MachineConfig(
        boot=BootImages(kernel=images[0], initrd=images[1], cmdline=_COMMAND_LINE),
        memory=_MIB << 20,
        objects=(_SEV,),
        machine_options={"memory-encryption": _SEV.id},
    )
    with Machine(config, load_plugins(Selection.parse(["no:logging"]))) as machine:
        console = Console(machine, PATIENCE)
        console.expect(_PROMPT)
        kept = machine.snapshot()

        def restore() -> float:
            started = time.perf_counter()
            machine.restore(kept)
            console.send(_QUESTION)
            console.expect(_ANSWER)
            return time.perf_counter() - started

        yield restore


@contextlib.contextmanager
def _there() -> Iterator[_Restore]:
    with tempfile.TemporaryDirectory() as folder:
        disk, monitor = Path(folder, "state.qcow2"), Path(folder, "monitor")
        create = [find_program("qemu-img", "qemu-utils"), "create", "-q", "-f", "qcow2", str(disk), "1M"]
        subprocess.run(create, check=True)
        command = [
            *qemu_booted(_KERNEL, _INITRD, _COMMAND_LINE),
            *("-drive", f"if=none,format=qcow2,file={disk}"),
            *("-monitor", f"unix:{monitor},server=on,wait=off"),
        ]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as process:
            try:
                _wait(process, _PROMPT)
                with socket.socket(socket.AF_UNIX) as human:
                    human.settimeout(PATIENCE)
                    human.connect(str(monitor))
                    _until(human)
                    _order(human, "savevm kept")

                    def restore() -> float:
                        assert process.stdin is not None
                        started = time.perf_counter()
                        _order(human, "loadvm kept")
                        process.stdin.write(_QUESTION)
                        _wait(process, _ANSWER)
                        return time.perf_counter() - started

                    yield restore
            finally:
                process.terminate()


def _wait(process: subprocess.Popen[bytes], text: bytes) -> None:
    if text not in read_until(process, text, time.monotonic() + PATIENCE):
        raise NotBooted(f"QEMU's guest did not say {text!r}")


def _order(human: socket.socket, line: str) -> None:
    human.sendall(line.encode() + b"\n")
    said = _until(human)
    if b"rror" in said:
        raise NotBooted(f"QEMU's monitor refused {line}: {said.decode(errors='replace')}")


def _until(human: socket.socket) -> bytes:
    """What the monitor says up to its next prompt; it echoes what it is sent, between two of them."""
    said = b""
    while not said.endswith(_MONITOR):
        piece = human.recv(1 << 16)
        if not piece:
            raise NotBooted("QEMU ended")
        said += piece
    return said
