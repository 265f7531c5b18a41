"""Fixtures for every folder of tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from parts import find_image

# Runs pytest inside a test, for what sevplug's own pytest plug-in does.
pytest_plugins = ("pytester",)


@pytest.fixture
def ovmf_amdsev() -> Path:
    """Debian's OVMF build for SEV with measured direct boot (package ovmf-amdsev)."""
    return find_image("OVMF.amdsev.fd")
