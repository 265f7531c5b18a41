"""A class without a base of its own does not say so."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from sphinx.application import Sphinx


def _remove(_app: Sphinx, document: nodes.document) -> None:
    for paragraph in list(document.findall(nodes.paragraph)):
        if paragraph.astext() == "Bases: object":
            paragraph.parent.remove(paragraph)


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.connect("doctree-read", _remove)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
