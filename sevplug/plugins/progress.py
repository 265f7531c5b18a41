"""The plug-in ``progress``: on a terminal, a line that says where a launch or a boot stands once it takes a while.

It shows the phase (`phases`), how long everything took, the guest's own time, and the last line of a serial port that
is not on this terminal.  Where the guest's output shares the terminal, the line keeps out of its way: it is there only
while the cursor stands on an empty line, and no more once the guest asks for what is typed.  On a pipe there is
nothing, unless it was asked for: then each phase is a line.
"""

from __future__ import annotations

import os
import re
import sys
import threading
import time
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from sevplug.board.debugcon import DebugConsole
from sevplug.board.output import GuestOutput
from sevplug.board.serial import Serial
from sevplug.core.errors import ConfigError
from sevplug.core.hookspecs import hookimpl
from sevplug.plugins.cursor import Cursor
from sevplug.plugins.heartbeat import Heartbeat
from sevplug.plugins.phases import NAME as PHASES_NAME
from sevplug.plugins.phases import PHASE, PHASES, PhasesPlugin
from sevplug.plugins.status_line import StatusLine

if TYPE_CHECKING:
    from collections.abc import Mapping

    import click

    from sevplug.core.machine import Machine

AUTO, ON, OFF = "auto", "on", "off"
# Seconds until there is something to wait for, between two looks at what to show, and of silence on the terminal
# before the line comes (back).
_LONG, _TICK, _SILENCE = 1.0, 0.2, 0.4
_LOOK_SECONDS = 1.0
_LAST_LINE = 200
_ESCAPE = re.compile(rb"\x1b(\[[0-?]*[ -/]*[@-~]|.)?")


class ProgressPlugin:
    """The line for one machine."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._line: StatusLine | None = None
        self._told = False
        self._cursor = Cursor()
        self._quiet_since = self._started
        self._last = bytearray()
        self._done = threading.Event()
        self._thread: threading.Thread | None = None
        self._heartbeat: Heartbeat | None = None

    @hookimpl
    def add_options(self, command: click.Command) -> None:
        """``--progress``."""
        import click  # only for those who come from the command line

        command.params.append(
            click.Option(
                ["--progress"],
                type=click.Choice((AUTO, ON, OFF)),
                default=AUTO,
                show_default=True,
                help="Show on stderr where a long launch or boot stands: if that is a terminal, always (a line for "
                "each phase where it is none), or never.",
            )
        )

    @hookimpl(tryfirst=True)
    def machine_init(self, machine: Machine) -> None:
        """Begin, where somebody can see it."""
        options = machine.config.options
        mode = options.get("progress") or OFF
        if mode not in (AUTO, ON, OFF):
            raise ConfigError(f"progress {mode!r}: expected {AUTO}, {ON} or {OFF}")
        if options.get("log_format") == "json":
            if mode == ON:
                raise ConfigError("--progress on: with --log-format json stderr has JSON only, expected auto or off")
            return
        if mode == OFF or sys.stderr is None:
            return
        if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
            self._told = mode == ON
            return
        self._line = StatusLine(sys.stderr)
        self._thread = threading.Thread(target=self._show, args=(machine,), name="sevplug-progress", daemon=True)
        self._thread.start()

    @hookimpl(trylast=True)
    def add_devices(self, machine: Machine) -> None:
        """Keep out of the way of what the guest sends to this terminal."""
        if self._line is None:
            return
        serial, debug = machine.private.get("serial"), machine.private.get("debugcon")
        terminal = sys.stdout is not None and sys.stdout.isatty()
        if isinstance(serial, Serial):
            here = machine.config.serial.startswith("stdio")
            if here:
                # What is typed, and what is said about it, is on this terminal from now on.
                serial.on_typing.append(self._line.close)
            if here and terminal:
                self._share(serial.sent)
            else:
                serial.sent.listeners.append(self._heard)
        if isinstance(debug, DebugConsole) and terminal and machine.config.options.get("debugcon") == "stdio":
            self._share(debug.sent)

    @hookimpl(trylast=True)
    def add_launch_regions(self, machine: Machine) -> None:
        """No region; but there is a CPU to look at now."""
        phases = machine.private.get(PHASES_NAME)
        if self._line is not None and isinstance(phases, PhasesPlugin):
            self._heartbeat = Heartbeat(machine, _LOOK_SECONDS, lambda: phases.look(machine))
            self._heartbeat.start()

    @hookimpl(wrapper=True)
    def notify(self, event: str, fields: Mapping[str, Any]) -> Generator[None, object, object]:
        """Whoever tells of an event may write to the terminal."""
        if self._told and event == PHASE:
            print(f"{time.monotonic() - self._started:7.3f}  {fields['text']}", file=sys.stderr, flush=True)
        return (yield from self._out_of_the_way())

    @hookimpl(wrapper=True)
    def summary(self) -> Generator[None, object, object]:
        """The same for the summary."""
        return (yield from self._out_of_the_way())

    @hookimpl
    def snapshot_save(self) -> None:
        """The line is of the run, whatever the guest goes back to."""

    @hookimpl(wrapper=True)
    def machine_close(self) -> Generator[None, object, object]:
        """The end, before anybody else's."""
        if self._heartbeat is not None:
            self._heartbeat.stop()
        self._done.set()
        if self._thread is not None:
            self._thread.join()
        if self._line is not None:
            self._line.close()
        return (yield)

    def _out_of_the_way(self) -> Generator[None, object, object]:
        if self._line is None:
            return (yield)
        with self._line.held():
            result = yield
        self._quiet_since = time.monotonic()
        return result

    # -- the guest's output --------------------------------------------------------------------------------------------

    def _share(self, output: GuestOutput) -> None:
        assert self._line is not None
        output.heralds.append(self._line.hold)
        # The first of all listeners: whoever is told next may write too, and then holds the line again.
        output.listeners.insert(0, self._passed)

    def _passed(self, piece: bytes) -> None:
        assert self._line is not None
        self._cursor.feed(piece)
        self._quiet_since = time.monotonic()
        self._line.release()

    def _heard(self, piece: bytes) -> None:
        self._last += piece
        del self._last[: -2 * _LAST_LINE]

    # -- on the thread -------------------------------------------------------------------------------------------------

    def _show(self, machine: Machine) -> None:
        assert self._line is not None
        if self._done.wait(_LONG):
            return
        while not self._done.wait(_TICK):
            if self._cursor.free and time.monotonic() - self._quiet_since >= _SILENCE:
                self._line.show(self._text(machine))

    def _text(self, machine: Machine) -> str:
        phases = machine.private.get(PHASES_NAME)
        words = [f"{time.monotonic() - self._started:5.1f} s"]
        if isinstance(phases, PhasesPlugin):
            words.append(PHASES[phases.phase])
        if machine.clock.now:
            words.append(f"guest time {machine.clock.now / 1e9:.2f} s")
        last = last_line(bytes(self._last))
        if last:
            words.append(last)
        return "  ".join(words)


def last_line(output: bytes) -> str:
    """The last line of a guest's ``output`` that has text, without its escape sequences and control characters."""
    for line in reversed(output.splitlines()):
        text = _without_escapes(line)
        if text:
            return text
    return ""


def _without_escapes(line: bytes) -> str:
    plain = _ESCAPE.sub(b"", line).decode(errors="replace")
    return "".join(character for character in plain if character.isprintable()).strip()[-_LAST_LINE:]
