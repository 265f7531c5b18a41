"""What a port is connected to on the host, by its spelling."""

from __future__ import annotations

from sevplug.board.chardev.sinks import SerialSink, open_sink
from sevplug.board.chardev.source import Source
from sevplug.core.errors import ConfigError

# Standard input whose Ctrl-C ends sevplug, as QEMU has it for a plain -serial stdio.
STDIO_SIGNALS = "stdio,signal=on"
EXPECTED = "stdio, null, file:PATH, unix:PATH or tcp:127.0.0.1:PORT"


def check(option: str, spelling: str) -> None:
    """`ConfigError`, with the name of the ``option``, where `open_ends` would not know ``spelling``."""
    if spelling.startswith(("unix:", "tcp:")):
        from sevplug.board.chardev.address import parse

        parse(option, spelling)
    elif spelling not in ("null", "stdio", STDIO_SIGNALS) and not (spelling.startswith("file:") and spelling[5:]):
        raise ConfigError(f"{option} {spelling}: not supported, expected {EXPECTED}")


def open_ends(spelling: str, what: str) -> tuple[SerialSink, Source | None]:
    """Where output goes, and where input comes from if there is any.

    ``spelling``: ``stdio``; ``stdio,signal=on``; ``null``; ``file:PATH``; ``unix:PATH`` and ``tcp:HOST:PORT`` as
    `address.parse` takes them.  ``what`` names the option in messages.  `ConfigError` when the spelling is another, or
    the place cannot be opened.
    """
    check(what, spelling)
    if spelling in ("stdio", STDIO_SIGNALS):
        from sevplug.board.chardev.stdin import open_stdin

        return open_sink("stdio", what), open_stdin(signals=spelling == STDIO_SIGNALS)
    if spelling.startswith(("unix:", "tcp:")):
        from sevplug.board.chardev.address import parse
        from sevplug.board.chardev.server import SocketServer

        server = SocketServer(what, parse(what, spelling))
        return server, server
    return open_sink(spelling, what), None
