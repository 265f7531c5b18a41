"""Real parts that are not in the repository: where tests look for them, and what they say when one is missing."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from images import guest_folders, how_to_get, look_for

from sevplug.testing.images import missing


def find_image(name: str) -> Path:
    """The real image ``name``, or a skip that says how to get it."""
    path = look_for(name)
    if path is None:
        missing(how_to_get(name))
    return path


def find_images(*names: str) -> tuple[Path, ...]:
    """Real images that belong together, such as a kernel and its modules: all of one folder, or a skip."""
    complete = (folder for folder in guest_folders() if all((folder / name).is_file() for name in names))
    folder = next(complete, None)
    if folder is None:
        missing(
            f"{' and '.join(names)} are not together in one folder: run scripts/fetch-guests {' '.join(names)}, "
            "or set SEVPLUG_GUESTS to a folder that holds them"
        )
    return tuple(folder / name for name in names)


def find_virtee() -> Path:
    """The folder of the virtee "sev" crate's certificates and, where it could be built, its peer; or a skip."""
    folder = next((folder for folder in guest_folders() if (folder / "virtee" / "certs").is_dir()), None)
    if folder is None:
        missing("virtee/certs is missing: run scripts/fetch-virtee, or set SEVPLUG_GUESTS to a folder that holds it")
    return folder / "virtee"


def find_virtee_peer() -> Path:
    """The program of tests/peers/virtee, or a skip that says why there is none."""
    peer = find_virtee() / "peer"
    if not peer.is_file():
        # Not `missing`: Debian 12's own rustc is too old for the crate, and that is no mistake of the machine's.
        pytest.skip("virtee/peer is missing: scripts/fetch-virtee needs rustc 1.85 or later, pkg-config and libssl-dev")
    return peer


def find_tool(name: str, package: str) -> str:
    """A real program's path, or a skip that names the Debian package it comes from."""
    path = shutil.which(name)
    if path is None:
        missing(f"{name} is missing: install the Debian package {package} (scripts/install-real-parts does)")
    return path
