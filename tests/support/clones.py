"""What a user starts from: a clone of the project."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from images import ROOT
from parts import missing


def clone(target: Path) -> None:
    """Copy the project's files, those of the present state and no others, to ``target``."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        missing("a clone cannot be made: this tree is not one of git's")
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
