r"""The serial console of a guest that runs in this process, for a program that talks to it.

    with Machine(config) as machine:
        console = Console(machine)
        console.expect("login: ")
        console.send("root\r")
        console.expect(r"# $")
        print(machine.run(timeout=60))

The guest runs while `Console.expect` waits, and stands still while the program thinks.  So in virtual time what is
typed behind an `expect` reaches the guest at the same instruction in each run.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from sevplug.board.serial import Serial
from sevplug.core.errors import ConfigError, SevplugError

if TYPE_CHECKING:
    from sevplug.core.machine import Machine

_SHOWN_LINES: Final = 15


class ConsoleError(SevplugError):
    """What was expected did not come: the time passed, or the guest ended.

    Below its first line the text shows the last lines that the guest said.
    """


class Console:
    """What the guest says from now on, and what it is told.  All methods belong to the machine's thread.

    ``timeout``: wall seconds that `expect` waits where it is not told otherwise.  `ConfigError` when the machine has no
    serial port.
    """

    def __init__(self, machine: Machine, timeout: float = 60.0) -> None:
        serial = machine.private.get("serial")
        if not isinstance(serial, Serial):
            raise ConfigError("the machine has no serial port: the plug-in pc-board is off")
        self._machine = machine
        self._serial = serial
        self._timeout = timeout
        self._unread = bytearray()
        self._awaited: re.Pattern[bytes] | None = None
        self._found: re.Match[bytes] | None = None
        serial.on_output.append(self._hear)
        # What the guest had not said by then was not said.
        machine.on_restore.append(self._unread.clear)

    @property
    def output(self) -> bytes:
        """What the guest sent so far (the newest 16 MiB at most)."""
        return bytes(self._serial.output)

    def send(self, text: str | bytes) -> None:
        r"""Type ``text`` (UTF-8 where it is a str) as it is; the key Enter is ``\r``.

        What the guest does not take at once waits for it.  As on a line of copper, what comes before it has set up its
        port may be lost: `expect` its prompt first.
        """
        self._serial.feed(text.encode() if isinstance(text, str) else text)

    def expect(self, pattern: str | bytes | re.Pattern[bytes], timeout: float | None = None) -> re.Match[bytes]:
        r"""Run the guest until ``pattern`` is in what it said behind the last match; the match, which is used up.

        A str or bytes is a regular expression over bytes, as `re` has them (a str is encoded in UTF-8; lines end in
        ``\r\n``, and ``$`` is the end of all output so far).  `ConsoleError` when ``timeout`` wall seconds pass or the
        guest ends before.
        """
        if isinstance(pattern, str):
            pattern = pattern.encode()
        self._awaited = re.compile(pattern)
        self._look()
        seconds = self._timeout if timeout is None else timeout
        try:
            if self._found is None and not self._machine.advance(seconds, lambda: self._found is not None):
                raise ConsoleError(self._explain(f"did not come within {seconds:g} s"))
            if self._found is None:
                self._serial.flush()
            if self._found is None:
                raise ConsoleError(self._explain("did not come before the guest ended"))
            found = self._found
            del self._unread[: found.end()]
            return found
        finally:
            self._awaited = self._found = None

    def _hear(self, piece: bytes) -> None:
        self._unread += piece
        self._look()
        if self._found is not None:
            self._machine.engine.leave()

    def _look(self) -> None:
        if self._awaited is not None and self._found is None:
            # A copy, because a match would keep the buffer from growing.
            self._found = self._awaited.search(bytes(self._unread))

    def _explain(self, what: str) -> str:
        self._serial.flush()
        assert self._awaited is not None
        lines = self.output.decode(errors="replace").splitlines()[-_SHOWN_LINES:]
        said = "".join(f"\n  | {line}" for line in lines) if lines else " nothing"
        return f"{self._awaited.pattern!r} {what}; the last that the guest said:{said}"
