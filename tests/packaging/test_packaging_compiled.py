"""The compiled parts in what is built: there with a C compiler, absent without harm elsewhere."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from images import ROOT
from packages import built_package

from sevplug.core.engine import compiled
from sevplug.sevapi import compiled as compiled_cipher

pytestmark = pytest.mark.package


@pytest.fixture(autouse=True)
def built() -> Path:
    """The file that was built and installed."""
    return built_package()


def test_the_installed_package_has_them() -> None:
    assert compiled.describe() == "compiled"
    # Its instructions are those of one kind of processor.
    assert compiled_cipher.describe() == "compiled" or platform.machine() != "x86_64"


def test_a_wheel_serves_every_python() -> None:
    package = built_package()
    if package.suffix == ".whl":
        assert "-cp311-abi3-" in package.name


def test_without_a_compiler_the_package_is_built_without_it_and_runs(tmp_path: Path) -> None:
    sources = tmp_path / "sources"
    subprocess.run(["cp", "-r", str(ROOT / "sevplug"), str(tmp_path)], check=True)
    sources.mkdir()
    (tmp_path / "sevplug").rename(sources / "sevplug")
    for library in (sources / "sevplug").rglob("*.so"):
        library.unlink()
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE", "MANIFEST.in"):
        (sources / name).write_bytes((ROOT / name).read_bytes())
    environment = {**os.environ, "CC": "no-compiler-here", "LDSHARED": "no-linker-here"}
    pip = [sys.executable, "-m", "pip", "-q"]
    subprocess.run(
        [*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(tmp_path), str(sources)],
        env=environment, check=True,
    )  # fmt: skip
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        assert not [name for name in archive.namelist() if name.endswith(".so")]
        archive.extractall(tmp_path / "installed")
    done = subprocess.run(
        [sys.executable, "-m", "sevplug", "run"],
        env={**os.environ, "PYTHONPATH": str(tmp_path / "installed")},
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout.splitlines()[-1:]) == (0, ["done"]), done.stderr
