"""The commands of the documentation, found in its pages.

What a block of a page is to the tests can be seen in the page:

- ``sh``: run. A page's blocks run in their order, in one shell, in a folder of their own.
- ``console``: lines that begin with ``$`` are run like that, and print what stands below. ``...`` is any text, alone in
  a line any lines; a number with three decimals is any number.
- ``python``: run as a program.
- A first line that is a comment and names a file: not run, but written to that file, for the blocks that follow.
- A first line ``# Not run by the tests: WHY.``: neither.
"""

from __future__ import annotations

import re
from pathlib import Path

import attrs
from images import ROOT

_FENCE = re.compile(r"^( *)(`{3,}|~{3,})(.*)$")
_FILE = re.compile(r"^(?:#|//|;|<!--) ([\w./-]*\w\.\w+|\w*Dockerfile|\w*Makefile)(?: -->)?$")
_NOT_RUN = re.compile(r"^# Not run by the tests: (.*)\.$")
_RUN = frozenset({"sh", "console", "python"})
# First words of a line that is a command; outside a fenced block nothing would run it.
_COMMAND = re.compile(
    r"^(?: {4,}|\t)(?:\$ )?(?:sevplug|scripts/\S+|tox|pip|python3?|virt-\S+|qmp-shell|gdb|apt-get|pytest) "
)


@attrs.frozen
class Block:
    """One fenced block: ``line`` is that of its fence in ``page``, a path below the project."""

    page: str
    line: int
    language: str
    text: str

    @property
    def where(self) -> str:
        """For messages."""
        return f"{self.page}:{self.line}"

    @property
    def first_line(self) -> str:
        """What may say something about the block."""
        return self.text.partition("\n")[0]

    @property
    def file(self) -> str | None:
        """The name of the file that the block is, if it is one."""
        found = _FILE.match(self.first_line)
        return found[1] if found else None

    @property
    def not_run(self) -> str | None:
        """Why the tests do not run it, if they do not."""
        found = _NOT_RUN.match(self.first_line)
        return found[1] if found else None

    @property
    def runs(self) -> bool:
        """Whether the tests run it."""
        return self.language in _RUN and self.file is None and self.not_run is None


def pages() -> list[Path]:
    """README.md and every page of the documentation."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(path: Path) -> list[Block]:
    """The fenced blocks of the page at ``path``, in their order; a directive's is none, but those inside it are."""
    page = str(path.relative_to(ROOT))
    return [Block(page, start, kind, "".join(f"{line}\n" for line in lines)) for start, kind, lines in _fenced(path)]


def stray_commands(path: Path) -> list[str]:
    """Lines of the page that look like commands and are in no fenced block, as ``page:line: text``."""
    inside = {start + number for start, _language, lines in _fenced(path) for number in range(len(lines) + 2)}
    lines = enumerate(path.read_text().splitlines(), 1)
    page = path.relative_to(ROOT)
    return [f"{page}:{at}: {line.strip()}" for at, line in lines if at not in inside and _COMMAND.match(line)]


def _fenced(path: Path) -> list[tuple[int, str, list[str]]]:
    """(line of the fence, language, lines within) of each block."""
    found: list[tuple[int, str, list[str]]] = []
    directives: list[str] = []
    opened: tuple[int, str, str, str] | None = None
    lines: list[str] = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        match = _FENCE.match(line)
        if opened is not None:
            start, indent, fence, language = opened
            if match and match[2].startswith(fence) and not match[3].strip():
                found.append((start, language, lines))
                opened = None
            else:
                lines.append(line.removeprefix(indent))
        elif match and directives and match[2].startswith(directives[-1]) and not match[3].strip():
            directives.pop()
        elif match and match[3].startswith("{"):
            directives.append(match[2])
        elif match:
            opened, lines = (number, match[1], match[2], match[3].strip()), []
    assert opened is None, f"{path}:{opened[0]}: the block does not end"
    assert not directives, f"{path}: a directive does not end"
    return found


@attrs.frozen
class Step:
    """One command of a ``console`` block, and the lines that it should print."""

    command: str
    expected: list[str]


def steps(block: Block) -> list[Step]:
    """The commands of a ``console`` block; lines behind one that ends in a backslash belong to it."""
    found: list[Step] = []
    continued = False
    for line in block.text.splitlines():
        if continued:
            last = found.pop()
            found.append(Step(f"{last.command}\n{line}", []))
        elif line.startswith("$ "):
            found.append(Step(line[2:], []))
        else:
            assert found, f"{block.where}: expected a line that begins with $ first"
            found[-1].expected.append(line)
        continued = found[-1].command.endswith("\\") and not found[-1].expected
    return found


def matches(expected: list[str], printed: str) -> bool:
    """Whether ``printed`` is what a page shows, with its freedoms; blanks at the ends of lines mean nothing."""
    pattern = ""
    for line in expected:
        if line.strip() == "...":
            pattern += r"(?:[^\n]*\n)*?"
            continue
        parts = re.split(r"(\.\.\.|\b\d+\.\d{3}\b)", line.rstrip())
        wild = {"...": r"[^\n]*"}
        pattern += "".join(
            wild.get(part, r" *\d+(?:\.\d+)?")
            if index % 2
            else re.escape(part.rstrip() if _before(parts, index) else part)
            for index, part in enumerate(parts)
        )
        pattern += r"[ \r]*\n"
    return re.fullmatch(pattern + r"\s*", printed.rstrip() + "\n") is not None


def _before(parts: list[str], index: int) -> bool:
    """Whether the part stands before a number, whose width may differ."""
    return index + 1 < len(parts) and parts[index + 1] != "..."
