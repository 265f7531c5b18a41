"""Opening and closing the socket that clients connect to."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from collections.abc import Iterator

from sevplug.board.chardev.address import TcpAddress, UnixAddress
from sevplug.core.errors import ConfigError

# Clients that wait until the one before them has left.
_BACKLOG = 16
_PRIVATE = 0o600


class Listener:
    """A listening socket; ``address`` is where it is bound (with the port that the system chose)."""

    def __init__(self, option: str, wanted: UnixAddress | TcpAddress) -> None:
        """Bind and listen.  `ConfigError` of one line, with the name of the ``option``, when that cannot be."""
        self._file: tuple[int, int] | None = None
        try:
            if isinstance(wanted, UnixAddress):
                self.socket = self._open_unix(option, wanted)
                self.address: UnixAddress | TcpAddress = wanted
            else:
                self.socket = self._open_tcp(wanted)
                self.address = TcpAddress(wanted.host, self.socket.getsockname()[1])
        except OSError as error:
            raise ConfigError(f"{option} {wanted}: {error.strerror or error}") from None

    def close(self) -> None:
        """Close the socket, and remove its file if it still is ours."""
        self.socket.close()
        if self._file is not None and isinstance(self.address, UnixAddress):
            with contextlib.suppress(OSError):
                status = os.lstat(self.address.path)
                if (status.st_dev, status.st_ino) == self._file:
                    os.unlink(self.address.path)
            self._file = None

    def _open_unix(self, option: str, wanted: UnixAddress) -> socket.socket:
        _make_room(option, wanted)
        with _listening(socket.AF_UNIX) as opened:
            # Linux gives the file the mode of the socket, so that it never is wider, not even for a moment.
            os.fchmod(opened.fileno(), _PRIVATE)
            opened.bind(wanted.path)
            status = os.lstat(wanted.path)
            self._file = status.st_dev, status.st_ino
        return opened

    def _open_tcp(self, wanted: TcpAddress) -> socket.socket:
        with _listening(socket.AF_INET6 if ":" in wanted.host else socket.AF_INET) as opened:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            opened.bind((wanted.host, wanted.port))
        return opened


@contextlib.contextmanager
def _listening(family: socket.AddressFamily) -> Iterator[socket.socket]:
    """A stream socket, which the block binds, and which listens behind it; closed when any of that fails."""
    opened = socket.socket(family, socket.SOCK_STREAM)
    try:
        yield opened
        opened.listen(_BACKLOG)
        opened.setblocking(False)
    except BaseException:
        opened.close()
        raise


def _make_room(option: str, wanted: UnixAddress) -> None:
    """Remove a socket that nobody listens on; `ConfigError` for one that is in use and for any other file."""
    try:
        mode = os.lstat(wanted.path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ConfigError(f"{option} {wanted}: the file exists and is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        # A full queue of waiting clients must not make this wait.
        probe.setblocking(False)
        try:
            probe.connect(wanted.path)
        except ConnectionRefusedError:
            os.unlink(wanted.path)
            return
        except BlockingIOError:
            pass
    raise ConfigError(f"{option} {wanted}: the socket is in use by another program")
