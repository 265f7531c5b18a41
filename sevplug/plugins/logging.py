"""The plug-in ``logging``: tells on the terminal, or in a file, what happens to a guest while it happens.

It makes its lines from the ``notify`` events and nothing else, so that people and programs are told the same.  Event
names in the log are those of `sevplug.core.events`; ``run.summary`` is added at the end.  Keys and secrets do not come
here; should one slip into an event, `plain` hides it.

What ends a run before its time is an ``error``: in a log file the last line, on stderr the command line's own.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TextIO

import attrs
import click

from sevplug.core import events
from sevplug.core.errors import ConfigError
from sevplug.core.hookspecs import hookimpl
from sevplug.core.result import ORDERLY, RESULTS
from sevplug.plugins import words
from sevplug.plugins.phases import PHASE
from sevplug.plugins.plain import describe, plain_fields, redact

if TYPE_CHECKING:
    from sevplug.core.machine import Machine

NAME = "logging"
SUMMARY = "run.summary"
FORMATS = ("console", "json")
# Numbers as in the standard library's logging.
LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
# A machine that was not made by the command line has none of our options, and a library should be quiet.
_QUIET = "warning"

Fields = Mapping[str, Any]


# -- hooks -----------------------------------------------------------------------------------------------------------


@hookimpl
def add_options(command: click.Command) -> None:
    """The log's format, place and threshold."""
    command.params += [
        click.Option(
            ["--log-format"],
            type=click.Choice(FORMATS),
            default="console",
            show_default=True,
            help="Lines for people, or one JSON object a line.",
        ),
        click.Option(["--log-file"], metavar="F", help="Write the log to F instead of stderr."),
        click.Option(
            ["--log-level"],
            type=click.Choice(tuple(LEVELS)),
            default="info",
            show_default=True,
            help="Leave out what matters less than this.",
        ),
    ]


@hookimpl
def machine_init(machine: Machine) -> None:
    """Open the log before anything is done; `ConfigError` when its file cannot be written."""
    _journal(machine)


@hookimpl
def notify(machine: Machine, event: str, fields: Mapping[str, Any]) -> None:
    """One log line for one event."""
    _journal(machine).tell(_level(event, fields), event, plain_fields(fields))


@hookimpl(trylast=True)
def summary(machine: Machine, document: dict[str, Any]) -> None:
    """Show the summary once every other plug-in has added its part."""
    _journal(machine).tell("info", SUMMARY, plain_fields(document))


@hookimpl
def snapshot_save() -> None:
    """Nothing of the guest's is here."""


@hookimpl
def machine_close(machine: Machine) -> None:
    """Close the log's file, with the error that ended the machine as its last line."""
    journal = machine.private.pop(NAME, None)
    if isinstance(journal, Journal):
        if journal.file is not None and machine.failure is not None:
            journal.tell("error", words.ERROR, {"text": describe(machine.failure)})
        journal.close()


# -- the log itself --------------------------------------------------------------------------------------------------


def _level(event: str, fields: Mapping[str, Any]) -> str:
    if event == events.WARNING:
        return "warning"
    if event == events.RUN_END and fields.get("result") not in ORDERLY:
        return "error"
    return "debug" if event in (events.LAUNCH_FINISH, events.GUEST_SHUTDOWN, PHASE) else "info"


def _journal(machine: Machine) -> Journal:
    """The log of ``machine``, opened at the first use: another plug-in's `machine_init` may warn before ours runs."""
    journal = machine.private.get(NAME)
    if not isinstance(journal, Journal):
        options = machine.config.options
        journal = Journal.open(
            str(options.get("log_format") or "console"),
            None if options.get("log_file") is None else str(options["log_file"]),
            str(options.get("log_level") or _QUIET),
        )
        machine.private[NAME] = journal
    return journal


@attrs.frozen
class Journal:
    """An open log of one machine: lines of ``render`` (level, event, fields) on ``stream``, which ``file`` may be."""

    stream: TextIO | None
    file: TextIO | None
    threshold: int
    render: Callable[[str, str, Fields], str]

    @classmethod
    def open(cls, form: str, path: str | None, level: str) -> Journal:
        """A log in ``form`` to the file ``path``, or to stderr; `ConfigError` when the file cannot be opened."""
        file = None if path is None else _open(path)
        stream = sys.stderr if file is None else file
        if form == "json":
            from sevplug.plugins.json_line import json_line

            return cls(stream, file, LEVELS[level], json_line)
        colours = stream is not None and _wants_colours(stream)
        return cls(stream, file, LEVELS[level], ConsoleLines(colours=colours))

    def tell(self, level: str, event: str, fields: Fields) -> None:
        """One line at once, so that it stands where it belongs among the guest's output; below the threshold, none.

        A terminal that has gone away is no reason to end a guest.
        """
        if LEVELS[level] < self.threshold or self.stream is None:
            return
        line = self.render(level, event, redact(fields))
        try:
            self.stream.write(line + "\n")
            self.stream.flush()
        except OSError:
            if self.file is not None:
                raise

    def close(self) -> None:
        """Close the file, if the log has one."""
        if self.file is not None:
            self.file.close()


def _open(path: str) -> TextIO:
    try:
        return open(path, "w", encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"--log-file {path}: {reason}, expected a writable file") from None


def _wants_colours(stream: TextIO) -> bool:
    # https://no-color.org
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


# -- lines for people ------------------------------------------------------------------------------------------------

_BOLD, _DIM, _RED, _YELLOW, _GREEN, _PLAIN = "\x1b[1m", "\x1b[2m", "\x1b[31m", "\x1b[33m", "\x1b[32m", "\x1b[0m"
_EVENT_WIDTH = 15


class ConsoleLines:
    """Makes lines of seconds since the log was opened, the event's name, and its fields in words."""

    def __init__(self, *, colours: bool) -> None:
        self._colours = colours
        self._opened = time.monotonic()

    def __call__(self, level: str, event: str, fields: Fields) -> str:
        if event == SUMMARY:
            return self._summary(fields)
        text = words.tell(event, fields)
        elapsed = self._paint(_DIM, f"{time.monotonic() - self._opened:7.3f}")
        colour = {"warning": _YELLOW, "error": _RED}.get(level, _BOLD)
        return f"{elapsed}  {self._paint(colour, event.ljust(_EVENT_WIDTH))}  {words.printable(text)}".rstrip()

    def _summary(self, fields: Fields) -> str:
        rows = _summary_rows(fields)
        width = max(len(name) for name, _text in rows)
        colour = _GREEN if fields.get("result") in ORDERLY else _RED
        lines = [f"{self._paint(_DIM, name.ljust(width))}  {words.printable(text)}" for name, text in rows]
        lines[0] = f"{self._paint(_DIM, rows[0][0].ljust(width))}  {self._paint(colour, words.printable(rows[0][1]))}"
        return "\n".join(["", *lines])

    def _paint(self, colour: str, text: str) -> str:
        return f"{colour}{text}{_PLAIN}" if self._colours else text


# Keys whose numbers fit one row, and the row's title.
_NUMBERS = {"memory": "memory pages", "counters": "counters"}


def _summary_rows(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The summary as (name, text) rows: how it ended, then what each plug-in says, then the counters."""
    result = str(document["result"])
    rows = [("result", f"{result}: {document.get('detail') or RESULTS.get(result, '')}")]
    for name, value in document.items():
        if name in ("result", "detail", "plugins", *_NUMBERS):
            continue
        if isinstance(value, Mapping):
            rows += [
                (f"{name} {inner.replace('_', ' ')}", _cell(inner, text)) for inner, text in _folded(value).items()
            ]
        else:
            rows.append((name.replace("_", " "), _cell(name, value)))
    for name, title in _NUMBERS.items():
        numbers = document.get(name)
        if isinstance(numbers, Mapping):
            rows.append((title, "  ".join(f"{inner} {count}" for inner, count in numbers.items())))
    return rows


def _folded(fields: Mapping[str, Any]) -> dict[str, Any]:
    """``fields`` with the three parts of an API version as one."""
    parts = ("api_major", "api_minor", "build_id")
    if not all(part in fields for part in parts):
        return dict(fields)
    others = {name: value for name, value in fields.items() if name not in parts}
    return {**others, "api": words.api(fields)}


def _cell(name: str, value: object) -> str:
    if name == "policy" and isinstance(value, int):
        return f"{value:#x}"
    if isinstance(value, list):
        return str(len(value))
    return "-" if value is None else str(value)
