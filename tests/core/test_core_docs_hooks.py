"""docs/reference/hooks.md and the hook specifications say the same."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import attrs
import pytest

from sevplug.core import hookspecs
from sevplug.plugins.qmp import hookspecs as qmp_hookspecs

DOCUMENT = Path(__file__).parents[2] / "docs" / "reference" / "hooks.md"
SPECIFICATIONS = (hookspecs, qmp_hookspecs)
_SECTION = re.compile(r"^### (\w+)\n\n```python\n(.*?)\n```\n\n\*(All|First), (cold|warm|hot)\.\*", re.M | re.S)


@attrs.frozen
class Hook:
    """A hook in one line, its kind, and how often it runs."""

    signature: str
    kind: str
    pace: str


def specified() -> dict[str, Hook]:
    """Every marked function of the specification modules, from their source."""
    found = {}
    for module in SPECIFICATIONS:
        for node in ast.parse(inspect.getsource(module)).body:
            if not isinstance(node, ast.FunctionDef):
                continue
            function = getattr(module, node.name)
            options = getattr(function, f"{hookspecs.PROJECT}_spec")
            words = re.match(r"(All|First), (cold|warm|hot): ", inspect.getdoc(function) or "")
            assert words, node.name
            assert (words[1] == "First") == bool(options["firstresult"]), node.name
            assert node.returns is not None
            signature = f"{node.name}({ast.unparse(node.args)}) -> {ast.unparse(node.returns)}"
            found[node.name] = Hook(signature, words[1], words[2])
    return found


def documented() -> dict[str, Hook]:
    return {match[1]: Hook(match[2], match[3], match[4]) for match in _SECTION.finditer(DOCUMENT.read_text())}


def test_every_hook_is_documented_and_nothing_else() -> None:
    headings = re.findall(r"^### (.*)$", DOCUMENT.read_text(), re.M)
    assert sorted(headings) == sorted(specified())
    assert len(set(headings)) == len(headings)


@pytest.mark.parametrize("name", sorted(specified()))
def test_a_hook_is_documented_with_its_exact_signature_kind_and_pace(name: str) -> None:
    assert documented()[name] == specified()[name]


@pytest.mark.parametrize("name", sorted(name for name, hook in specified().items() if hook.kind == "First"))
def test_the_section_of_a_first_hook_says_what_none_means(name: str) -> None:
    section = DOCUMENT.read_text().split(f"### {name}\n")[1].split("\n### ")[0]
    assert re.search(r"\bNone\s+from\s+all\b", section)
