"""Names of addresses, from a file as ``nm`` or a kernel's System.map have it: address, type, name in each line."""

from __future__ import annotations

from bisect import bisect_right

import attrs

from sevplug.core.errors import ConfigError

# Beyond this distance a name says nothing.
_FAR = 1 << 20
_LIMIT = 64 << 20


@attrs.frozen
class Symbols:
    """Sorted addresses and their names."""

    _addresses: list[int] = attrs.field(repr=False)
    _names: list[str] = attrs.field(repr=False)

    def describe(self, address: int) -> str:
        """``name+0x12`` for linear ``address``, or nothing where no symbol is near."""
        index = bisect_right(self._addresses, address) - 1
        if index < 0 or address - self._addresses[index] >= _FAR:
            return ""
        return f"{self._names[index]}+{address - self._addresses[index]:#x}"


def read_symbols(path: str) -> Symbols:
    """The symbols in the file at ``path``; `ConfigError` when it cannot be read or a line of it is none."""
    where = f"--symbols {path}"
    try:
        with open(path, "rb") as file:
            data = file.read(_LIMIT + 1)
    except OSError as error:
        raise ConfigError(f"{where}: {error.strerror or error}") from None
    if len(data) > _LIMIT:
        raise ConfigError(f"{where}: expected at most {_LIMIT} bytes")
    found = []
    for number, line in enumerate(data.decode(errors="replace").splitlines(), 1):
        words = line.split()
        if not words or words[0] == "U":
            continue
        try:
            found.append((int(words[0], 16), words[2]))
        except (ValueError, IndexError):
            raise ConfigError(f"{where}: line {number}: expected ADDRESS TYPE NAME, as nm prints it") from None
    found.sort()
    return Symbols([address for address, _name in found], [name for _address, name in found])
