"""Names in docstrings and signatures, such as `ConfigError`, link to the object of sevplug that is meant.

Sphinx looks a name up in the module that mentions it. Here a name also means what that module imports under it, for
the type checker alone too, and else the one object that ends in it, wherever it lives. What is no object of sevplug
stays plain code.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.nodes import make_refnode


@functools.cache
def _imports(module: str) -> dict[str, str]:
    """Name -> full name, of everything that the module's source imports by name."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        return {}
    found = {}
    for node in ast.walk(ast.parse(Path(spec.origin).read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            found.update({name.asname or name.name: f"{node.module}.{name.name}" for name in node.names})
    return found


class ImportedNames(SphinxPostTransform):
    """Replace a name by the full one of what its module imports; runs before Sphinx resolves references."""

    default_priority = 5

    def run(self, **_options: Any) -> None:
        """Look at every reference of one page."""
        for node in self.document.findall(addnodes.pending_xref):
            if node.get("refdomain") != "py" or not node.get("py:module"):
                continue
            first, dot, rest = node["reftarget"].partition(".")
            full = _imports(node["py:module"]).get(first)
            if full is not None and full.startswith("sevplug."):
                node["reftarget"] = full + dot + rest


def _resolve(
    app: Sphinx, env: BuildEnvironment, node: addnodes.pending_xref, content: nodes.TextElement
) -> nodes.Node | None:
    if node.get("refdomain") != "py":
        return None
    objects = env.domains.python_domain.objects
    name = node["reftarget"].removesuffix("()")
    found = [full for full in objects if full.endswith(f".{name}")]
    if len(found) != 1:
        return None
    entry = objects[found[0]]
    return make_refnode(app.builder, node["refdoc"], entry.docname, entry.node_id, content, found[0])


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.add_post_transform(ImportedNames)
    app.connect("missing-reference", _resolve)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
