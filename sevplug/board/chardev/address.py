"""Where a server listens, in QEMU's spelling.  Pure; `sockets` opens what is said here.

Source: QEMU's ``qemu-options.hx`` (``-chardev socket``) and ``chardev/char-socket.c``.
"""

from __future__ import annotations

import ipaddress
import re

import attrs

from sevplug.core.errors import ConfigError

# The longest path in a sockaddr_un, without the NUL behind it (Linux, unix(7)).
UNIX_PATH_MAX = 107
_SWITCH = {"on": True, "yes": True, "off": False, "no": False}


@attrs.frozen
class UnixAddress:
    """A socket in the file system; ``path`` as it was given."""

    path: str

    def __str__(self) -> str:
        return f"unix:{self.path}"


@attrs.frozen
class TcpAddress:
    """A loopback address; ``port`` 0 lets the system choose."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"tcp:{host}:{self.port}"


@attrs.frozen
class ServerOption:
    """A value that makes sense; ``wait``: the machine starts when a client has come."""

    address: UnixAddress | TcpAddress
    wait: bool


def parse(option: str, text: str) -> ServerOption:
    """``unix:PATH`` or ``tcp:HOST:PORT``, with ``,server=on`` (the only kind there is) and ``,wait=on|off``.

    As in QEMU a written ``server`` waits unless ``wait=off`` is there too; without any option nothing waits.  A comma
    in a path is written twice.  `ConfigError` for anything else, and for an address that is not a loopback one;
    ``option`` names the option in messages.
    """
    if "\0" in text:
        raise ConfigError(f"{option} {text!r}: expected no NUL")
    kind, colon, rest = text.partition(":")
    if not colon or kind not in ("unix", "tcp"):
        raise ConfigError(f"{option} {text}: expected unix:PATH or tcp:127.0.0.1:PORT")
    where, *options = (part.replace("\0", ",") for part in rest.replace(",,", "\0").split(","))
    server = wait = None
    for word in options:
        match _switch(option, text, word):
            case "server", state:
                server = state
            case "wait", state:
                wait = state
    if server is False:
        raise ConfigError(f"{option} {text}: expected server=on, a server cannot be another's client")
    address = _unix(option, text, where) if kind == "unix" else _tcp(option, text, where)
    return ServerOption(address, bool(server) if wait is None else wait)


def _switch(option: str, text: str, word: str) -> tuple[str, bool]:
    """``server``, ``wait`` and their spellings as a name and a state."""
    name, equals, value = word.partition("=")
    if not equals and name.startswith("no"):
        name, value = name[2:], "off"
    elif not equals:
        value = "on"
    if name not in ("server", "wait"):
        raise ConfigError(f"{option} {text}: unknown option {word!r}, expected server=on or wait=on|off")
    if value not in _SWITCH:
        raise ConfigError(f"{option} {text}: {name}={value}, expected on or off")
    return name, _SWITCH[value]


def _unix(option: str, text: str, path: str) -> UnixAddress:
    if not path:
        raise ConfigError(f"{option} {text}: expected a path behind unix:")
    size = len(path.encode("utf-8", "surrogateescape"))
    if size > UNIX_PATH_MAX:
        raise ConfigError(f"{option} {text}: the path has {size} bytes, expected at most {UNIX_PATH_MAX}")
    return UnixAddress(path)


def _tcp(option: str, text: str, where: str) -> TcpAddress:
    host, colon, port = where.rpartition(":")
    if not colon or not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 0xFFFF:
        raise ConfigError(f"{option} {text}: expected tcp:HOST:PORT with a port from 0 to 65535")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    try:
        local = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = False
    if not local:
        raise ConfigError(
            f"{option} {text}: {host or 'no host'}, expected a loopback address (127.0.0.1, ::1, localhost)"
        )
    return TcpAddress("127.0.0.1" if host == "localhost" else host, int(port))
