"""A `sevplug run` process that waits at -S, its QMP client, and libvirt's validator as its guest's owner."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import attrs
from parts import find_tool
from qemu.qmp.legacy import QEMUMonitorProtocol

from sevplug.board.console import unheard

SECRET = b"MY-LUKS-PASSPHRASE"
TIK, TEK = bytes(range(16)), bytes(range(16, 32))


@attrs.frozen
class Kernel:
    """What is started by measured direct boot, and what the owner expects to have been measured."""

    kernel: Path
    initrd: Path
    command_line: str


class Guest:
    """One such process; what it needs and writes lies in ``folder``.

    ``launch``: the options with its SEV object, where they are not these keys in files.
    """

    def __init__(
        self, folder: Path, firmware: Path, kernel: Kernel | None, timeout: int, launch: Sequence[str] = ()
    ) -> None:
        self.folder, self.firmware, self.kernel = folder, firmware, kernel
        (folder / "tik.bin").write_bytes(TIK)
        (folder / "tek.bin").write_bytes(TEK)
        self.serial = folder / "serial.txt"
        keys = f"tik={folder / 'tik.bin'},tek={folder / 'tek.bin'}"
        with_keys = ("--object", f"sev-emulated,id=sev0,cbitpos=47,reduced-phys-bits=1,policy=0x1,{keys}")
        command = [
            sys.executable, "-m", "sevplug", "run", "--bios", str(firmware), "-m", "256M", "-S",
            *(launch or with_keys),
            "--machine", "memory-encryption=sev0", "--qmp", f"unix:{folder / 'qmp'}",
            "--serial", f"file:{self.serial}", "--timeout", str(timeout),
        ]  # fmt: skip
        if kernel is not None:
            command += ["--kernel", str(kernel.kernel), "--initrd", str(kernel.initrd)]
            command += ["--append", kernel.command_line]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        self.qmp = QEMUMonitorProtocol(str(folder / "qmp"))
        deadline = time.monotonic() + 15
        while True:
            try:
                self.qmp.connect()
                return
            except Exception:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    self.process.kill()
                    raise AssertionError(self.process.communicate()[1]) from None
                time.sleep(0.05)

    def measurement(self) -> str:
        return str(self.qmp.cmd("query-sev-launch-measure")["data"])

    def validate(self, *changes: str, **replaced: str) -> subprocess.CompletedProcess[str]:
        """libvirt's validator on this guest's measurement; ``replaced`` swaps an argument's value."""
        find_tool("virt-qemu-sev-validate", "libvirt-clients-qemu")
        told = self.qmp.cmd("query-sev")
        values = {
            "firmware": str(self.firmware), "tik": str(self.folder / "tik.bin"), "tek": str(self.folder / "tek.bin"),
            "api-major": str(told["api-major"]), "api-minor": str(told["api-minor"]),
            "build-id": str(told["build-id"]), "policy": str(told["policy"]), "measurement": self.measurement(),
        }  # fmt: skip
        if self.kernel is not None:
            values |= {"kernel": str(self.kernel.kernel), "initrd": str(self.kernel.initrd)}
            values["cmdline"] = self.kernel.command_line
        values |= {name.replace("_", "-"): value for name, value in replaced.items()}
        words = [word for name, value in values.items() for word in (f"--{name}", value)]
        # The tool's modules are Debian's, so it runs under Debian's Python and not under this one.
        command = ["/usr/bin/python3", "/usr/bin/virt-qemu-sev-validate", *words, *changes]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    def sealed_by_libvirt(self) -> tuple[Path, Path]:
        """The files of a header and a payload in which the validator sealed `SECRET` as luks-key."""
        (self.folder / "secret.txt").write_bytes(SECRET)
        header, payload = self.folder / "header.b64", self.folder / "payload.b64"
        done = self.validate(
            "--inject-secret", f"luks-key:{self.folder / 'secret.txt'}",
            "--secret-header", str(header), "--secret-payload", str(payload),
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return header, payload

    def inject(self, header: Path, payload: Path) -> None:
        packet = {"packet-header": header.read_text().strip(), "secret": payload.read_text().strip()}
        self.qmp.cmd("sev-inject-launch-secret", **packet)

    def wait_for(self, text: bytes, seconds: float) -> bytes:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            seen = self.serial.read_bytes() if self.serial.exists() else b""
            if text in seen:
                return seen
            time.sleep(0.05)
        raise unheard(text, f"did not come within {seconds:g} s", seen)

    def close(self) -> None:
        self.qmp.close()
        if self.process.poll() is None:
            self.process.terminate()
        self.process.communicate(timeout=10)


@contextmanager
def paused(
    folder: Path, firmware: Path, kernel: Kernel | None = None, timeout: int = 60, launch: Sequence[str] = ()
) -> Iterator[Guest]:
    guest = Guest(folder, firmware, kernel, timeout, launch)
    try:
        yield guest
    finally:
        guest.close()
