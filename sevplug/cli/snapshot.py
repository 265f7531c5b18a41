"""``sevplug snapshot``: run a guest up to a point, and keep it in a file as it is there."""

from __future__ import annotations

import os
import re
import signal
from typing import Any

import click

from sevplug.cli import run
from sevplug.cli.app import NOT_IN_ORDER
from sevplug.cli.complaints import EndedBadly
from sevplug.cli.from_snapshot import key_option
from sevplug.cli.machine_command import MachineCommand
from sevplug.cli.options import parse_number, parse_seconds
from sevplug.cli.session import TIMED_OUT, Session, opened
from sevplug.core.errors import ConfigError
from sevplug.core.machine import Machine
from sevplug.core.plugins import PluginManager
from sevplug.core.signals import ended_by_signals
from sevplug.core.snapshot import needs_key, read_snapshot_key

HELP = """Run a guest up to a point, and write it to FILE as it is there; "sevplug run --from FILE" goes on.

The guest is given as for "sevplug run".  The point is one of --at-line, --at-time, --at-wall and --at-address.  The
file is written whole or not at all.  A guest whose memory is encrypted needs --snapshot-key: without one, nothing that
is secret is written.
"""
_POINTS = ("at_line", "at_time", "at_wall", "at_address")
_NANOSECONDS = 10**9


def command() -> MachineCommand:
    """A fresh ``snapshot`` command, for plug-ins to extend."""
    return MachineCommand(
        "snapshot", callback=_snapshot, help=HELP, short_help="Keep a guest in a file.", params=_options()
    )


def _options() -> list[click.Parameter]:
    return [
        click.Argument(["file"], metavar="FILE"),
        click.Option(["--at-line"], metavar="REGEX", help="When this has come on the serial port."),
        click.Option(["--at-time"], metavar="S", help="When the guest's own clock has reached S seconds."),
        click.Option(["--at-wall"], metavar="S", help="After S seconds of wall time."),
        click.Option(["--at-address"], metavar="ADDRESS", help="When the instruction at this linear address is next."),
        key_option(),
        *run.guest_options(),
    ]


@click.pass_context
def _snapshot(ctx: click.Context, /, **values: Any) -> int:
    assert isinstance(ctx.command, MachineCommand)
    names = [name for name in _POINTS if values[name] is not None]
    if len(names) != 1:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in _POINTS)
        raise ConfigError(f"snapshot {values['file']}: expected one of {options}")
    key = None if values["snapshot_key"] is None else read_snapshot_key(values["snapshot_key"])
    point = _point(names[0], values[names[0]])
    session, plugins = run.session_of(ctx, values)
    return _make(session, plugins, point, values["file"], key)


class _Point:
    """Where the guest is to stop; ``text`` says it for messages."""

    def __init__(self, text: str, limit: float | None = None) -> None:
        self.text = text
        # Wall seconds at which the point is reached, whatever the guest does.
        self.wall = limit

    def reach(self, machine: Machine, timeout: float | None) -> bool:
        """Run ``machine`` up to the point; False when it ended, or the time passed, before."""
        machine.advance(timeout if self.wall is None else self.wall)
        return machine.status == "running"


class _Line(_Point):
    def __init__(self, pattern: str) -> None:
        super().__init__(f"the line {pattern!r}")
        try:
            self._pattern = re.compile(pattern.encode())
        except re.error as error:
            raise ConfigError(f"--at-line {pattern}: no regular expression: {error}") from None

    def reach(self, machine: Machine, timeout: float | None) -> bool:
        from sevplug.board.console import Console, ConsoleError

        try:
            Console(machine).expect(self._pattern, timeout=float("inf") if timeout is None else timeout)
        except ConsoleError:
            return False
        return True


class _Time(_Point):
    def __init__(self, seconds: float) -> None:
        super().__init__(f"{seconds:g} s of the guest's time")
        self._deadline = int(seconds * _NANOSECONDS)

    def reach(self, machine: Machine, timeout: float | None) -> bool:
        from sevplug.core.clock import Timer

        reached: list[bool] = []

        def due() -> None:
            reached.append(True)
            machine.engine.leave()

        machine.clock.start(Timer(due), self._deadline)
        machine.advance(timeout, lambda: bool(reached))
        return bool(reached)


class _Address(_Point):
    def __init__(self, address: int) -> None:
        super().__init__(f"the instruction at {address:#x}")
        self._address = address

    def reach(self, machine: Machine, timeout: float | None) -> bool:
        return machine.advance_to(self._address, timeout)


def _point(name: str, text: str) -> _Point:
    if name == "at_line":
        return _Line(text)
    if name == "at_address":
        return _Address(parse_number("--at-address", text, (1 << 64) - 1))
    seconds = parse_seconds(f"--{name.replace('_', '-')}", text)
    return _Time(seconds) if name == "at_time" else _Point(f"{seconds:g} s", seconds)


def _make(session: Session, plugins: PluginManager, point: _Point, path: str, key: bytes | None) -> int:
    if session.config.paused:
        raise ConfigError("-S: a guest that does not run comes to no point, expected no -S")
    _check_place(path)
    with opened(session, plugins) as machine, ended_by_signals(machine, signal.SIGINT, signal.SIGTERM) as interrupted:
        if key is None and machine.memory.page_counts() is not None:
            # Before the guest has run for minutes.
            raise ConfigError(needs_key(path, "the guest's memory is encrypted"))
        reached = point.reach(machine, session.timeout)
        if interrupted.status is not None:
            return interrupted.status
        if not reached:
            raise EndedBadly(*_why(machine, point))
        machine.snapshot().save(path, key)
    return 0


def _check_place(path: str) -> None:
    """`ConfigError` where no file can be made, before a guest has run for nothing."""
    folder = os.path.dirname(os.path.realpath(path))
    if os.path.isdir(path) or not os.path.isdir(folder):
        raise ConfigError(f"snapshot {path}: expected the name of a file in a folder that is there")
    if not os.access(folder, os.W_OK):
        raise ConfigError(f"snapshot {path}: the folder cannot be written to")


def _why(machine: Machine, point: _Point) -> tuple[str, int]:
    ended = machine.ended
    if ended is None:
        return f"no snapshot: the guest did not come to {point.text} within the time limit", TIMED_OUT
    return f"no snapshot: the guest ended before {point.text}: {ended.result}, {ended.detail}", NOT_IN_ORDER
