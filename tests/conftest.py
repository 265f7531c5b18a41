"""Fixtures for every folder of tests."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from distributions import Installer, install
from hypothesis import settings
from parts import find_image

if TYPE_CHECKING:
    from inner_runs import InnerRun

# How long an example takes says how busy the machine is.  SEVPLUG_THOROUGH=1 (`tox -e slow`) looks at five times as
# many where a test does not say how many.
settings.register_profile("sevplug", deadline=None, max_examples=40)
settings.register_profile("thorough", deadline=None, max_examples=200)
settings.load_profile("thorough" if os.environ.get("SEVPLUG_THOROUGH") else "sevplug")

# Runs pytest inside a test, for what sevplug's own pytest plug-in does.
pytest_plugins = ("pytester",)


@pytest.fixture
def ovmf_amdsev() -> Path:
    """Debian's OVMF build for SEV with measured direct boot (package ovmf-amdsev)."""
    return find_image("OVMF.amdsev.fd")


@pytest.fixture
def installer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Installer]:
    """``installer(distribution, modules, requires=(), **entry_points)`` lays a distribution where it is found.

    Its modules have names that begin with ``extra``, and are forgotten after the test.
    """
    before, folder = set(sys.modules), tmp_path / "installed"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)

    def lay(name: str, modules: dict[str, str], requires: tuple[str, ...] = (), **entry_points: str) -> None:
        named = {key.replace("_", "-"): value for key, value in entry_points.items()}
        install(folder, name, modules, named, requires)
        importlib.invalidate_caches()

    yield lay
    for name in set(sys.modules) - before:
        if name.startswith("extra"):
            del sys.modules[name]


@pytest.fixture(scope="session")
def _imported() -> None:
    """Runs before pytester looks at what is imported; see there."""
    from inner_runs import import_everything

    import_everything()


@pytest.fixture
def inner_run(_imported: None, pytester: pytest.Pytester) -> Iterator[InnerRun]:
    """Runs pytest on a user's module, in this process."""
    from inner_runs import InnerRun

    found = InnerRun(pytester)
    yield found
    for machine in found.machines:
        machine.close()
