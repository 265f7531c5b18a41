"""Guests in tests: what the fixtures of `sevplug.testing.plugin` hand out, for annotations and for use without them.

pytest loads the fixtures by its entry point wherever sevplug is installed.  So nothing here is imported before it is
used, and a test run that uses none pays nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sevplug import lazy_names

if TYPE_CHECKING:
    from sevplug.board.console import ConsoleError
    from sevplug.testing.embedded import EmbeddedGuest
    from sevplug.testing.factories import BootOnce, MachineFactory, PausedMachineFactory
    from sevplug.testing.guest import Guest
    from sevplug.testing.images import ImageFinder
    from sevplug.testing.kept import KeptGuest
    from sevplug.testing.owner import Owner
    from sevplug.testing.paused import PausedGuest
    from sevplug.testing.platform import Platform
    from sevplug.testing.settings import Settings

__all__ = [
    "BootOnce",
    "ConsoleError",
    "EmbeddedGuest",
    "Guest",
    "ImageFinder",
    "KeptGuest",
    "MachineFactory",
    "Owner",
    "PausedGuest",
    "PausedMachineFactory",
    "Platform",
    "Settings",
]

__getattr__ = lazy_names(
    __name__,
    {
        "BootOnce": "sevplug.testing.factories",
        "ConsoleError": "sevplug.board.console",
        "EmbeddedGuest": "sevplug.testing.embedded",
        "Guest": "sevplug.testing.guest",
        "ImageFinder": "sevplug.testing.images",
        "KeptGuest": "sevplug.testing.kept",
        "MachineFactory": "sevplug.testing.factories",
        "Owner": "sevplug.testing.owner",
        "PausedGuest": "sevplug.testing.paused",
        "PausedMachineFactory": "sevplug.testing.factories",
        "Platform": "sevplug.testing.platform",
        "Settings": "sevplug.testing.settings",
    },
)
