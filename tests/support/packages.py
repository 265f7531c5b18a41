"""The package that tox has built, for tests of what is in it."""

from __future__ import annotations

import os
from pathlib import Path

from parts import missing


def built_package() -> Path:
    """The wheel or source distribution that tox has built and installed here, or a skip."""
    if "TOX_PACKAGE" not in os.environ:
        missing("there is no built package of sevplug: run tox -e wheel,sdist,third-party, which build theirs")
    return Path(os.environ["TOX_PACKAGE"])


def files_of(folder: Path) -> set[str]:
    """The files below ``folder``, without what Python leaves behind."""
    found = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return {name for name in found if "__pycache__" not in name}
