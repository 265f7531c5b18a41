"""The pytest plug-in: fixtures for whoever tests firmware, kernels, attestation clients or plug-ins of sevplug.

pytest imports this module in every run where sevplug is installed (``-p no:sevplug`` leaves it out), so it imports
nothing of sevplug before a fixture is used.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from sevplug.testing import (
        BootOnce,
        EmbeddedGuest,
        ImageFinder,
        MachineFactory,
        Owner,
        PausedMachineFactory,
        Platform,
    )


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--sevplug-guests``, and the ini option of the same name."""
    group = parser.getgroup("sevplug", "guests under emulated AMD SEV")
    group.addoption(
        "--sevplug-guests",
        metavar="DIR",
        help="The folder in which the fixture sevplug_image finds firmware and kernels; else the environment variable "
        "SEVPLUG_GUESTS and the ini option sevplug_guests.",
    )
    parser.addini(
        "sevplug_guests", type="paths", help="Folders in which the fixture sevplug_image finds firmware and kernels."
    )


@pytest.fixture
def _sevplug_folder(tmp_path: Path) -> Path:
    """Where the fixtures keep the files of one test."""
    folder = tmp_path / "sevplug"
    folder.mkdir()
    return folder


@pytest.fixture
def sevplug_machine(
    request: pytest.FixtureRequest, _sevplug_folder: Path, sevplug_owner: Owner
) -> Iterator[MachineFactory]:
    """Make guests that run in the test's thread: sevplug_machine(firmware=..., memory=...) -> Guest."""
    from sevplug.testing import MachineFactory

    with MachineFactory(_sevplug_folder, sevplug_owner, _teller(request)) as factory:
        yield factory


@pytest.fixture(scope="session")
def sevplug_boot_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BootOnce]:
    """Boot a guest once, for tests that begin there: sevplug_boot_once("login: ", kernel=...) -> KeptGuest."""
    from sevplug.testing import BootOnce, Owner

    folder = tmp_path_factory.mktemp("sevplug")
    with BootOnce(folder, Owner(folder), lambda _heading, _text: None) as factory:
        yield factory


@pytest.fixture
def sevplug_paused_machine(
    request: pytest.FixtureRequest, _sevplug_folder: Path, sevplug_owner: Owner
) -> Iterator[PausedMachineFactory]:
    """Make launched, paused guests with a QMP socket: sevplug_paused_machine(firmware=...) -> PausedGuest."""
    from sevplug.testing import PausedMachineFactory

    with PausedMachineFactory(_sevplug_folder, sevplug_owner, _teller(request)) as factory:
        yield factory


@pytest.fixture
def sevplug_owner(_sevplug_folder: Path) -> Owner:
    """The owner of the test's guests: fresh keys that they are launched with, verify, seal and inject."""
    from sevplug.testing import Owner

    return Owner(_sevplug_folder)


@pytest.fixture
def sevplug_platform(_sevplug_folder: Path) -> Platform:
    """An emulated platform in a folder of the test's own, with its chain of certificates up to a root."""
    from sevplug.testing.platform import new_platform

    return new_platform(_sevplug_folder / "platform")


@pytest.fixture
def sevplug_embedded_guest(_sevplug_folder: Path) -> EmbeddedGuest:
    """The guest that comes with sevplug, a self-test of SEV that prints its secrets: as a file, bytes and images."""
    from sevplug.testing.embedded import embedded_guest

    return embedded_guest(_sevplug_folder)


@pytest.fixture(scope="session")
def sevplug_image(pytestconfig: pytest.Config) -> ImageFinder:
    """Find a real image: sevplug_image("OVMF.amdsev.fd") -> Path; without it the test skips and says how to get it."""
    from sevplug.testing.images import ImageFinder, image_folders

    return ImageFinder(image_folders(pytestconfig.getoption("sevplug_guests"), pytestconfig.getini("sevplug_guests")))


class _Teller:
    """Adds a section to the report of a test, which pytest shows where the test failed."""

    def __init__(self, node: pytest.Item) -> None:
        self._node = node

    def __call__(self, heading: str, text: str) -> None:
        self._node.add_report_section("teardown", heading, text)


def _teller(request: pytest.FixtureRequest) -> _Teller:
    return _Teller(request.node)
