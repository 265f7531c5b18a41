"""Every public module of a package on one page: `{{ modules sevplug.core }}` stands for a section of each.

A module whose name begins with an underscore, and a package within the package, are not public.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator
from typing import Any

from sphinx.application import Sphinx

_PLACE = re.compile(r"^\{\{ modules ([\w.]+) \}\}$", re.M)


def public_modules(package: str) -> list[str]:
    """The full names of the package's modules, in alphabetical order."""
    found = pkgutil.iter_modules(importlib.import_module(package).__path__, f"{package}.")
    return [info.name for info in found if not info.ispkg and not info.name.rpartition(".")[2].startswith("_")]


def _sections(package: str) -> Iterator[str]:
    yield f"```{{eval-rst}}\n.. automodule:: {package}\n   :no-members:\n```\n"
    for module in public_modules(package):
        yield f"## {module}\n\n```{{eval-rst}}\n.. automodule:: {module}\n```\n"


def _insert(_app: Sphinx, _page: str, source: list[str]) -> None:
    source[0] = _PLACE.sub(lambda match: "\n".join(_sections(match[1])), source[0])


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.connect("source-read", _insert)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
