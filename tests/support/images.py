"""Where real guest images are looked for; for the tests and for bench/."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


def guest_folders() -> list[Path]:
    """Folders that may hold real images, in the order they are asked."""
    named = os.environ.get("SEVPLUG_GUESTS")
    found = [Path(named)] if named else []
    return [*found, ROOT / "guests"]


def look_for(name: str) -> Path | None:
    """The real image ``name``, or None."""
    return next((folder / name for folder in guest_folders() if (folder / name).is_file()), None)


def how_to_get(name: str) -> str:
    """One line for whoever lacks the image ``name``."""
    # Fetched with everything else but what has to be compiled.
    argument = " bzImage-coco" if name == "bzImage-coco" else ""
    return f"{name} is missing: run scripts/fetch-guests{argument}, or set SEVPLUG_GUESTS to a folder that holds it"
