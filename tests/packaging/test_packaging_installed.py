"""What a wheel or a source distribution installs, away from the sources; `tox -e wheel,sdist` runs this."""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path

import pytest
from images import ROOT
from packages import built_package, files_of

import sevplug

pytestmark = pytest.mark.package
PACKAGE = Path(sevplug.__file__).parent


@pytest.fixture(autouse=True)
def built() -> Path:
    """The file that was built and installed."""
    return built_package()


def installed_files(folder: Path) -> set[str]:
    """The files of the package ``folder``, without the optional library and what it is compiled from."""
    return {name for name in files_of(folder) if not name.endswith((".c", ".h", ".so"))}


def test_the_package_is_that_of_the_environment() -> None:
    assert PACKAGE.is_relative_to(sys.prefix)
    assert metadata.version("sevplug") == sevplug.__version__


def test_every_file_of_the_package_is_installed_and_no_other() -> None:
    assert installed_files(PACKAGE) == installed_files(ROOT / "sevplug"), "is there an old build/ beside the sources?"


def test_nothing_but_the_package_is_installed() -> None:
    installed = metadata.files("sevplug")
    assert installed is not None
    folders = {path.parts[0] for path in installed if ".." not in path.parts}
    assert folders == {"sevplug", f"sevplug-{sevplug.__version__}.dist-info"}


def test_what_is_installed_has_its_licence_and_its_command() -> None:
    (command,) = metadata.entry_points(group="console_scripts", name="sevplug")
    assert (Path(sys.prefix) / "bin" / command.name).is_file()
    licence = metadata.distribution("sevplug").read_text("licenses/LICENSE")
    assert licence == (ROOT / "LICENSE").read_text()
