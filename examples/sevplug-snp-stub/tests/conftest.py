"""Guests with the plug-in switched on as ``-P snp-stub -P no:sev`` does it."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from images import firmware

from sevplug import Machine, MachineConfig
from sevplug.core.config import BootImages, Image
from sevplug.core.plugins import Selection, load_plugins

MakeMachine = Callable[..., contextlib.AbstractContextManager[Machine]]


@pytest.fixture
def make_machine() -> MakeMachine:
    """``make_machine(image, *plugins, **config)``: a machine that starts from the bytes ``image``."""

    @contextlib.contextmanager
    def make(image: bytes, *plugins: object, words: tuple[str, ...] = (), **config: Any) -> Iterator[Machine]:
        manager = load_plugins(Selection.parse(["snp-stub", "no:sev", *words]))
        for plugin in plugins:
            manager.add(plugin, type(plugin).__name__)
        boot = config.pop("boot", BootImages(firmware=Image(image, "test.fd")))
        with Machine(MachineConfig(boot=boot, memory=64 << 20, **config), manager) as machine:
            yield machine

    return make


@pytest.fixture(params=["made by the test", pytest.param("OVMF.amdsev.fd", marks=pytest.mark.real)])
def firmware_file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Firmware with SEV metadata: a small one, and Debian's (package ovmf-amdsev)."""
    if request.param != "made by the test":
        path = Path(os.environ.get("SEVPLUG_GUESTS", "."), request.param)
        if not path.is_file():
            pytest.skip(f"{request.param} is missing: set SEVPLUG_GUESTS to a folder that holds it")
        return path
    sections = [
        (0x800000, 0x3000, 1), (0x80D000, 0x1000, 2), (0x80E000, 0x1000, 3), (0x80F000, 0x1000, 4),
        (0x810000, 0x1000, 0x10), (0x811000, 0x2000, 1),
    ]  # fmt: skip
    (tmp_path / "test.fd").write_bytes(firmware(sections, hashes_at=0x810C00))
    return tmp_path / "test.fd"


@pytest.fixture
def snp_measure() -> Callable[..., str]:
    """The oracle: ``sev-snp-measure --mode snp`` with one vCPU and further arguments; the digest in hex."""

    def measure(*arguments: str) -> str:
        command = ["sev-snp-measure", "--mode", "snp", "--vcpus", "1", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.strip()

    return measure
