"""What a guest sent to a terminal as lines of coloured text.  Pure.

A page is no terminal: text stays in the order in which it came.  Colours are kept (rich reads them); a carriage return
or a backspace writes over what is there; a jump of the cursor begins a new line; what else moves, clears or asks is
left out.  Source of the sequences: ECMA-48, xterm's ctlseqs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import attrs

if TYPE_CHECKING:
    from rich.color import Color
    from rich.style import Style

# Strings (titles, DCS), sequences, and single escapes; an unfinished one at the end is one too.
_ESCAPE: Final = re.compile(
    r"\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b\[(?P<parameters>[0-?]*)[ -/]*(?P<final>[@-~]?)|\x1b[ -/]*[0-~]?"
)
# Final bytes of sequences that put the cursor on another line.
_JUMPS: Final = frozenset("HfABEFd")
_JUMP: Final = "\v"
_COLOURS: Final = re.compile(r"(\x1b\[[0-9;]*m)")


@attrs.frozen
class Span:
    """Text of one look: ``classes`` of the style sheet, and a style of its own for colours beyond the first sixteen."""

    text: str
    classes: str = ""
    style: str = ""


def lines_of(output: bytes) -> list[tuple[Span, ...]]:
    """``output`` as lines; what is no UTF-8 is replaced."""
    from rich.ansi import AnsiDecoder

    decoder = AnsiDecoder()
    found = []
    for line in _plain_lines(output.decode(errors="replace")):
        text = decoder.decode_line(line)
        spans, at = [], 0
        for span in text.spans:
            if span.start > at:
                spans.append(Span(text.plain[at : span.start]))
            style = span.style
            assert not isinstance(style, str)
            spans.append(_span(text.plain[span.start : span.end], style))
            at = span.end
        if at < len(text.plain):
            spans.append(Span(text.plain[at:]))
        found.append(tuple(spans))
    shown = [number for number, spans in enumerate(found) if any(span.text.strip() for span in spans)]
    return found[shown[0] : shown[-1] + 1] if shown else []


def _plain_lines(text: str) -> Iterator[str]:
    """Lines that hold printable characters and the sequences of colours, and nothing else."""
    text = _ESCAPE.sub(_simplified, text.replace(_JUMP, ""))
    for whole in text.split("\n"):
        # A cursor that jumps before or behind a line's text begins no line.
        parts = whole.split(_JUMP)
        for line in [part for part in parts if _COLOURS.sub("", part).strip()] or [parts[-1]]:
            yield _written_over(line) if "\b" in line or "\r" in line.rstrip("\r") else _printable(line)


def _simplified(found: re.Match[str]) -> str:
    final = found["final"]
    if final == "m" and re.fullmatch(r"[0-9;]*", found["parameters"]):
        return found[0]
    return _JUMP if final in _JUMPS and final else ""


def _written_over(line: str) -> str:
    """The line after its carriage returns and backspaces; colours stay where they were said."""
    cells: list[str] = []
    at, colour = 0, ""
    for piece in _COLOURS.split(line):
        if _COLOURS.fullmatch(piece):
            colour += piece
            continue
        for character in piece:
            if character == "\r":
                at = 0
            elif character == "\b":
                at = max(0, at - 1)
            elif character in "\t" or character.isprintable():
                cells[at : at + 1] = [colour + character]
                at, colour = at + 1, ""
    return "".join(cells) + colour


def _printable(line: str) -> str:
    return "".join(piece if _COLOURS.fullmatch(piece) else _only_printable(piece) for piece in _COLOURS.split(line))


def _only_printable(text: str) -> str:
    return text if text.isprintable() else "".join(one for one in text if one == "\t" or one.isprintable())


def _span(text: str, style: Style) -> Span:
    colour, background = style.color, style.bgcolor
    names = [name for name in ("bold", "dim", "italic", "underline", "strike") if getattr(style, name)]
    rules = []
    if style.reverse:
        colour, background = background, colour
        names.append("reverse")
    for prefix, rule, chosen in (("f", "color", colour), ("b", "background-color", background)):
        if chosen is None or chosen.is_default:
            continue
        if chosen.number is not None and chosen.number < 16:
            names.append(f"{prefix}{chosen.number}")
        else:
            rules.append(f"{rule}:{_hex(chosen)}")
    return Span(text, " ".join(names), ";".join(rules))


def _hex(colour: Color) -> str:
    return colour.get_truecolor().hex
