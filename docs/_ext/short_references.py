"""A name in backticks, such as `ConfigError`, links to the one object of sevplug that ends in it, wherever that lives.

Sphinx looks a name up in the module that mentions it only.  What is no object of sevplug stays plain code.
"""

from __future__ import annotations

from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.nodes import make_refnode


def _resolve(
    app: Sphinx, env: BuildEnvironment, node: addnodes.pending_xref, content: nodes.TextElement
) -> nodes.Node | None:
    if node.get("refdomain") != "py":
        return None
    name = node["reftarget"].removesuffix("()")
    objects = env.domains.python_domain.objects
    found = [full for full in objects if full == name or full.endswith(f".{name}")]
    own = [full for full in found if full.startswith(f"{node.get('py:module')}.")]
    chosen = own if len(own) == 1 else found
    if len(chosen) != 1:
        return None
    entry = objects[chosen[0]]
    return make_refnode(app.builder, node["refdoc"], entry.docname, entry.node_id, content, chosen[0])


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.connect("missing-reference", _resolve)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
