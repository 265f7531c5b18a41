"""What this program itself says on stderr: lines for people, or with ``--log-format json`` objects like the log's.

In the second form nothing else reaches stderr: what Python would print there by itself (the traceback of an error that
nobody expected, of a thread's, a warning of a library) becomes an object too.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import attrs
import click

from sevplug.core.errors import SevplugError

OPTION = "--log-format"
ERROR, WARNING = "error", "warning"


def wants_json(arguments: Sequence[str]) -> bool:
    """Whether the command line asks for a JSON log, the last time that it says anything about it.

    It has to be known also where the line cannot be parsed.
    """
    form = None
    for number, argument in enumerate(arguments):
        if argument == "--":
            break
        if argument == OPTION and number + 1 < len(arguments):
            form = arguments[number + 1]
        elif argument.startswith(f"{OPTION}="):
            form = argument.removeprefix(f"{OPTION}=")
    return form == "json"


class EndedBadly(SevplugError):
    """The guest ran and did not end in order; ``status`` is the exit status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


@attrs.frozen
class Complaints:
    """How errors are told."""

    as_json: bool

    def error(self, message: str, status: int) -> int:
        """Say why on stderr, as one line, and hand back the exit ``status``."""
        text = " ".join(message.split())
        if self.as_json:
            _tell(ERROR, text, status=status)
        else:
            with contextlib.suppress(OSError):
                click.echo(f"sevplug: error: {text}", err=True)
        return status

    @contextlib.contextmanager
    def only(self) -> Iterator[None]:
        """Within the block, what Python would print on stderr is told as JSON, where that was asked for."""
        if not self.as_json:
            yield
            return
        previous = threading.excepthook, sys.unraisablehook
        with warnings.catch_warnings():
            threading.excepthook = lambda failed: _failed(failed.exc_value, failed.thread)
            sys.unraisablehook = lambda failed: _failed(failed.exc_value, failed.object)
            warnings.showwarning = lambda message, category, *_place: _tell(WARNING, f"{category.__name__}: {message}")
            try:
                yield
            finally:
                threading.excepthook, sys.unraisablehook = previous

    def unexpected(self, error: Exception, status: int) -> int:
        """An error that nobody expected, with its traceback; raised again where people read."""
        if not self.as_json:
            raise error
        _failed(error, None, status=status)
        return status


def _failed(error: BaseException | None, where: object, **fields: Any) -> None:
    if error is None:
        return
    import traceback  # only where something went wrong

    lines = traceback.format_exception(error)
    text = " ".join(lines[-1].split())
    if isinstance(where, threading.Thread):
        text = f"in thread {where.name}: {text}"
    _tell(ERROR, text, traceback="".join(lines), **fields)


def _tell(event: str, text: str, **fields: Any) -> None:
    from sevplug.plugins.json_line import json_line

    line = json_line(event, event, {"text": text, **fields})
    if sys.stderr is None:
        return
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(line + "\n")
        sys.stderr.flush()
