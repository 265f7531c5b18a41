"""Real images (firmware, kernels, initrds) for tests: where they are looked for, and what is said of a missing one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NoReturn

import attrs
import pytest

# The folder, where no option names one.
VARIABLE: Final = "SEVPLUG_GUESTS"
# Set where everything is meant to be there, as in CI: what would be skipped fails.
REQUIRED: Final = "SEVPLUG_REQUIRE_REAL"
_HOW_TO_NAME: Final = f"name a folder that holds it with --sevplug-guests, {VARIABLE} or the ini option sevplug_guests"
_HOW_TO_GET: Final = {
    "OVMF.amdsev.fd": "Debian's package ovmf-amdsev has it as /usr/share/ovmf/OVMF.amdsev.fd",
}
_FETCH: Final = "scripts/fetch-guests of sevplug's sources gets the images that its own tests use"


def missing(what: str) -> NoReturn:
    """Skip the test with ``what`` as the reason; fail it where ``SEVPLUG_REQUIRE_REAL`` is set."""
    __tracebackhide__ = True
    if os.environ.get(REQUIRED):
        pytest.fail(what)
    pytest.skip(what)


@attrs.frozen
class ImageFinder:
    """Finds images by their names; ``folders`` are asked in their order."""

    folders: tuple[Path, ...]

    def __call__(self, name: str) -> Path:
        """The path of the image ``name``; where there is none, the test is skipped with how to get it.

        With the environment variable ``SEVPLUG_REQUIRE_REAL`` the test fails instead.
        """
        __tracebackhide__ = True
        for folder in self.folders:
            if (folder / name).is_file():
                return folder / name
        missing(f"{name} is missing ({self._looked()}): {_HOW_TO_NAME}; {_HOW_TO_GET.get(name, _FETCH)}")

    def _looked(self) -> str:
        if not self.folders:
            return "no folder of images is named"
        return "not in " + ", ".join(
            str(folder) if folder.is_dir() else f"{folder}, which is no folder" for folder in self.folders
        )


def image_folders(option: str | None, configured: Sequence[Path]) -> tuple[Path, ...]:
    """Where images are looked for: the folder of the command line, that of the environment, those of the ini file."""
    named = [Path(folder) for folder in (option, os.environ.get(VARIABLE)) if folder]
    return (*named, *configured)
