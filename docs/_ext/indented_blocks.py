"""An indented block in a docstring is shown as it is written: a layout of bytes, a formula."""

from __future__ import annotations

from typing import Any

from sphinx.application import Sphinx


def _literal(_app: Sphinx, _what: str, _name: str, _object: object, _options: object, lines: list[str]) -> None:
    found: list[str] = []
    inside = False
    for line in lines:
        indented = line.startswith("    ")
        if indented and not inside and found and not found[-1]:
            found += ["::", ""]
            inside = True
        elif line and not indented:
            inside = False
        found.append(line)
    lines[:] = found


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", _literal)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
