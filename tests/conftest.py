"""Fixtures for every folder of tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from parts import find_image

if TYPE_CHECKING:
    from inner_runs import InnerRun

# Runs pytest inside a test, for what sevplug's own pytest plug-in does.
pytest_plugins = ("pytester",)


@pytest.fixture
def ovmf_amdsev() -> Path:
    """Debian's OVMF build for SEV with measured direct boot (package ovmf-amdsev)."""
    return find_image("OVMF.amdsev.fd")


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
