"""Sphinx: `tox -e docs` builds these pages, with warnings as errors and every internal link checked."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

from pygments.lexers.special import TextLexer
from sphinx.application import Sphinx

from sevplug import __version__

project = "sevplug"
author = "The sevplug authors"
copyright = author
release = version = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "cli_reference",
    "indented_blocks",
    "module_pages",
    "plain_bases",
    "short_references",
]
source_suffix = {".md": "markdown"}
# The table of the bench is a part of a page.
exclude_patterns = ["_build", "explanation/figures.md"]

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

# Docstrings put names of the code into single backticks: links where there is something to link to.
default_role = "py:obj"
nitpicky = True
# Other projects' objects are not looked up, so that a build needs no network; what is no API has no place to link to.
nitpick_ignore_regex = [
    ("py:.*", r"(?!sevplug\.).*"),
    ("py:.*", r"sevplug\.(board|cli|plugins|core\.engine)\b.*"),
    ("py:.*", r"sevplug\.core\.control\.T"),
    ("py:.*", r"sevplug\.testing\.\w+\.(T|_Factory)"),
    # Each is documented in the module that it is from.
    ("py:.*", r"sevplug\.testing\.[A-Z]\w+"),
]

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_default_options = {"members": True, "undoc-members": True, "show-inheritance": True}

html_theme = "furo"
smartquotes = False

html_title = f"sevplug {release}"
html_show_sphinx = False
html_show_copyright = False
html_copy_source = False
html_static_path: list[str] = []


def setup(app: Sphinx) -> None:
    """Pygments has no lexer for GDB's commands."""
    app.add_lexer("gdb", TextLexer)
