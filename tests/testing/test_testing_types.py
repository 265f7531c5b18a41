"""A user's annotated tests are checked strictly against the types that the package brings (py.typed)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import sevplug

pytestmark = pytest.mark.slow

ANNOTATED = """
from collections.abc import Iterator
from pathlib import Path

import pytest

from sevplug import MachineConfig
from sevplug.testing import (
    BootOnce,
    ConsoleError,
    EmbeddedGuest,
    Guest,
    ImageFinder,
    KeptGuest,
    MachineFactory,
    Owner,
    PausedGuest,
    PausedMachineFactory,
    Platform,
)


@pytest.fixture
def firmware(sevplug_image: ImageFinder) -> Path:
    return sevplug_image("OVMF.amdsev.fd")


@pytest.fixture
def guest(sevplug_machine: MachineFactory, firmware: Path) -> Guest:
    return sevplug_machine(firmware=firmware, memory=1 << 26, sev={"policy": "0x0"}, plugins=["no:logging"])


@pytest.fixture(scope="module")
def kept(sevplug_boot_once: BootOnce) -> KeptGuest:
    return sevplug_boot_once("login: ", memory=1 << 26, plugins=["no:logging"], timeout=10)


def test_kept(kept: KeptGuest) -> None:
    guest: Guest = kept()
    guest.send("root")


def test_guest(guest: Guest, sevplug_machine: MachineFactory, sevplug_owner: Owner) -> None:
    sevplug_owner.inject(guest, {"luks-key": "secret"})
    found: bytes = guest.expect(r"shell> (.*)", timeout=30)[1]
    guest.send(found)
    result: str = guest.wait().result
    number: int = guest.call(lambda machine: machine.memory.ram_size)
    assert (result, number) != ("", 0)
    with pytest.raises(ConsoleError):
        sevplug_machine(MachineConfig(memory=1 << 20)).wait(0.1)


def test_paused(
    sevplug_paused_machine: PausedMachineFactory, sevplug_platform: Platform, sevplug_embedded_guest: EmbeddedGuest
) -> None:
    guest: PausedGuest = sevplug_paused_machine(firmware=sevplug_embedded_guest.path, platform=sevplug_platform)
    path: Path = guest.qmp
    assert path, guest.summary
"""
WRONG = """
from sevplug.testing import MachineFactory, PausedGuest


def test_guest(sevplug_machine: MachineFactory) -> None:
    guest: PausedGuest = sevplug_machine(memory="1G")
    guest.expects("login: ")
"""


def test_a_users_annotated_test_is_checked_strictly(tmp_path: Path) -> None:
    pytest.importorskip("mypy", reason="mypy is missing: pip install sevplug[lint] brings it")
    (tmp_path / "annotated.py").write_text(ANNOTATED)
    (tmp_path / "wrong.py").write_text(WRONG)
    command = [sys.executable, "-m", "mypy", "--strict", "--no-incremental", "annotated.py", "wrong.py"]
    environment = dict(os.environ)
    home = Path(sevplug.__file__).parent.parent
    if home.name != "site-packages":
        environment["MYPYPATH"] = str(home)  # mypy does not see what is installed to be edited
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.stdout.splitlines() == [
        'wrong.py:6: error: Incompatible types in assignment (expression has type "Guest", variable has type '
        '"PausedGuest")  [assignment]',
        'wrong.py:6: error: Argument "memory" to "__call__" of "MachineFactory" has incompatible type "str"; '
        'expected "int"  [arg-type]',
        'wrong.py:7: error: "PausedGuest" has no attribute "expects"; maybe "expect"?  [attr-defined]',
        "Found 3 errors in 1 file (checked 2 source files)",
    ]
