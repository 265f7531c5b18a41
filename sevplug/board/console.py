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

Pattern = str | bytes | re.Pattern[bytes]


class ConsoleError(SevplugError):
    """What was expected did not come: the time passed, or the guest ended.

    Below its first line the text shows the last lines that the guest said.
    """


def serial_of(machine: Machine) -> Serial:
    """The machine's serial port; `ConfigError` when it has none."""
    serial = machine.private.get("serial")
    if not isinstance(serial, Serial):
        raise ConfigError("the machine has no serial port: the plug-in pc-board is off")
    return serial


def typed(text: str | bytes) -> bytes:
    """``text`` as bytes: a str in UTF-8."""
    return text.encode() if isinstance(text, str) else text


def last_lines(output: bytes) -> str:
    """The last lines of ``output``, each below the one before and behind a bar; " nothing" where there are none."""
    lines = output.decode(errors="replace").splitlines()[-_SHOWN_LINES:]
    return "".join(f"\n  | {line}" for line in lines) if lines else " nothing"


class Heard:
    """What a guest said behind the last match, and the pattern that is waited for in it; knows of no machine."""

    def __init__(self) -> None:
        self._unread = bytearray()
        self._awaited: re.Pattern[bytes] | None = None
        self._found: re.Match[bytes] | None = None

    @property
    def found(self) -> bool:
        """Whether the pattern that is waited for has come."""
        return self._found is not None

    def hear(self, piece: bytes) -> None:
        """The guest says ``piece``."""
        self._unread += piece
        self._look()

    def wait_for(self, pattern: Pattern) -> None:
        """Wait for ``pattern``, as `Console.expect` takes it, in what was and will be heard."""
        self._awaited = re.compile(typed(pattern) if isinstance(pattern, str) else pattern)
        self._look()

    def take(self) -> re.Match[bytes] | None:
        """The match, which is used up, or None; nothing is waited for any more."""
        found, self._awaited, self._found = self._found, None, None
        if found is not None:
            del self._unread[: found.end()]
        return found

    def forget(self) -> None:
        """Nothing was said."""
        self._unread.clear()

    def _look(self) -> None:
        if self._awaited is not None and self._found is None:
            # A copy, because a match would keep the buffer from growing.
            self._found = self._awaited.search(bytes(self._unread))


def unheard(pattern: Pattern, why: str, output: bytes) -> ConsoleError:
    """The error for ``pattern``, which ``why`` ("did not come within 3 s"), with the last lines of ``output``."""
    shown = typed(pattern.pattern if isinstance(pattern, re.Pattern) else pattern)
    return ConsoleError(f"{shown!r} {why}; the last that the guest said:{last_lines(output)}")


class Console:
    """What the guest says from now on, and what it is told.  All methods belong to the machine's thread.

    ``timeout``: wall seconds that `expect` waits where it is not told otherwise.  `ConfigError` when the machine has no
    serial port.
    """

    def __init__(self, machine: Machine, timeout: float = 60.0) -> None:
        self._serial = serial_of(machine)
        self._machine = machine
        self._timeout = timeout
        self._heard = Heard()
        self._serial.on_output.append(self._hear)
        # What the guest had not said by then was not said.
        machine.on_restore.append(self._heard.forget)

    @property
    def output(self) -> bytes:
        """What the guest sent so far (the newest 16 MiB at most)."""
        return bytes(self._serial.output)

    def send(self, text: str | bytes) -> None:
        r"""Type ``text`` (UTF-8 where it is a str) as it is; the key Enter is ``\r``.

        What the guest does not take at once waits for it.  As on a line of copper, what comes before it has set up its
        port may be lost: `expect` its prompt first.
        """
        self._serial.feed(typed(text))

    def expect(self, pattern: Pattern, timeout: float | None = None) -> re.Match[bytes]:
        r"""Run the guest until ``pattern`` is in what it said behind the last match; the match, which is used up.

        A str or bytes is a regular expression over bytes, as `re` has them (a str is encoded in UTF-8; lines end in
        ``\r\n``, and ``$`` is the end of all output so far).  `ConsoleError` when ``timeout`` wall seconds pass or the
        guest ends before.
        """
        heard = self._heard
        heard.wait_for(pattern)
        seconds = self._timeout if timeout is None else timeout
        why = "did not come before the guest ended"
        try:
            if not heard.found and not self._machine.advance(seconds, lambda: heard.found):
                why = f"did not come within {seconds:g} s"
            if not heard.found:
                self._serial.flush()
        finally:
            found = heard.take()
        if found is None:
            raise unheard(pattern, why, self.output)
        return found

    def _hear(self, piece: bytes) -> None:
        self._heard.hear(piece)
        if self._heard.found:
            self._machine.engine.leave()
