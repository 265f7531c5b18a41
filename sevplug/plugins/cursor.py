"""Where the cursor of a terminal stands after what a guest has sent, as far as it can be told.  Pure.

The one question is whether the cursor's line is empty, so that another may write on it and wipe it clean again.  After
a newline it is, unless the guest has moved the cursor up before; after that it is again once the screen was cleared.
Source: ECMA-48, and xterm's ctlseqs for the private sequences.
"""

from __future__ import annotations

import re
from typing import Final

_SEQUENCE: Final = re.compile(rb"\x1b\[([0-?]*)[ -/]*([@-~])|\x1b([^\[\]PX^_\x1b])")
# The start of a sequence whose rest has not come, at the end of a piece.
_UNFINISHED: Final = re.compile(rb"\x1b(\[[0-?]*[ -/]*)?$")
# Final bytes of sequences that leave cursor and text where they are: colours, modes, window operations.
_HARMLESS: Final = frozenset(b"mhltnc")
_HOME: Final = re.compile(rb"(0*1?(;0*1?)?)?")


class Cursor:
    """What is known of the cursor; at first it stands on an empty line, as behind a shell's command."""

    def __init__(self) -> None:
        self._known = True
        self._empty = True
        self._cleared = False
        self._rest = b""

    @property
    def free(self) -> bool:
        """Whether the cursor surely stands at the start of an empty line."""
        return self._known and self._empty and not self._rest

    def feed(self, data: bytes) -> None:
        """The terminal gets ``data``."""
        data = self._rest + data
        unfinished = _UNFINISHED.search(data)
        self._rest = b"" if unfinished is None else unfinished[0]
        data = data[: len(data) - len(self._rest)]
        at = 0
        for found in _SEQUENCE.finditer(data):
            self._text(data[at : found.start()])
            self._sequence(found)
            at = found.end()
        self._text(data[at:])

    def _text(self, text: bytes) -> None:
        if not text:
            return
        self._cleared = False
        if b"\x1b" in text or b"\x0b" in text or b"\x0c" in text:
            self._known = False
        last = text.rpartition(b"\n")
        if last[1]:
            self._empty = True
        if last[2].strip(b"\r\0\x07"):
            self._empty = False

    def _sequence(self, found: re.Match[bytes]) -> None:
        parameters, final = found[1] or b"", found[2] or b""
        if final == b"J" and parameters in (b"2", b"3"):
            self._cleared = True
            self._known = False
        elif final in (b"H", b"f") and self._cleared and _HOME.fullmatch(parameters):
            self._known = self._empty = True
        elif not final or final[0] not in _HARMLESS:
            self._known = self._cleared = False
