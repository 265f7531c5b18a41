"""Reading a parsed TOML document strictly: every key is known, every value has the type that its key wants.

Every error is a `ConfigError` of one line that names file, key and what was expected.  It shows the type of what was
found and never the value.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NoReturn

import attrs

from sevplug.core.errors import ConfigError

_KINDS = {bool: "a boolean", int: "an integer", float: "a float", str: "a string", list: "an array", dict: "a table"}


@attrs.frozen
class Field:
    """One value of the document, and where it is: ``file`` and ``key`` (``axes.kernel[1]``) are for messages."""

    file: str
    key: str
    value: Any = attrs.field(repr=False)

    def refuse(self, expected: str, found: str | None = None) -> NoReturn:
        """`ConfigError`: this is not what was ``expected``; ``found`` is the value's type where it isn't given."""
        what = f"found {_KINDS.get(type(self.value), 'a date or time')}" if found is None else found
        where = f"{self.file}: {self.key}" if self.key else self.file
        raise ConfigError(f"{where}: {what}, expected {expected}")

    def table(self, known: Iterable[str] | None = None) -> dict[str, Field]:
        """A table's fields, in the file's order; refused where one is not ``known``."""
        if not isinstance(self.value, dict):
            self.refuse("a table")
        prefix = f"{self.key}." if self.key else ""
        fields = {name: Field(self.file, prefix + _shown(name), value) for name, value in self.value.items()}
        if known is not None:
            names = list(known)
            for name, field in fields.items():
                if name not in names:
                    field.refuse(", ".join(names), "unknown key")
        return fields

    def array(self) -> Iterator[Field]:
        """An array's fields."""
        if not isinstance(self.value, list):
            self.refuse("an array")
        for index, value in enumerate(self.value):
            yield Field(self.file, f"{self.key}[{index}]", value)

    def one_or_more(self) -> list[Field]:
        """An array's fields; what is no array is one."""
        return list(self.array()) if isinstance(self.value, list) else [self]

    def text(self, expected: str = "a string") -> str:
        """A string that can be handed to a process."""
        if not isinstance(self.value, str):
            self.refuse(expected)
        if "\0" in self.value:
            self.refuse("a string without it", "a NUL character")
        return self.value

    def label(self) -> str:
        """A string that can be shown in a line, and is not empty."""
        text = self.text()
        if not text or not text.isprintable():
            self.refuse("a name", "nothing, or a character that cannot be shown")
        return text

    def words(self) -> tuple[str, ...]:
        """Words of a command line: an array of strings."""
        return tuple(field.text("a string, as a word of sevplug run is") for field in self.array())

    def seconds(self, most: float) -> float:
        """A number of seconds, from a thousandth up to ``most``."""
        value = self.value
        if isinstance(value, bool) or not isinstance(value, int | float):
            self.refuse("a number of seconds")
        if not 0.001 <= value <= most:  # nor is it nan
            self.refuse(f"0.001 to {most:.0f} seconds", "out of range")
        return float(value)

    def integer(self, least: int, most: int) -> int:
        """An integer of a range."""
        if isinstance(self.value, bool) or not isinstance(self.value, int):
            self.refuse(f"an integer from {least} to {most}")
        if not least <= self.value <= most:
            self.refuse(f"an integer from {least} to {most}", "out of range")
        return self.value

    def word_of(self, known: Mapping[str, object]) -> str:
        """A string that is a key of ``known``."""
        text = self.text(", ".join(known))
        if text not in known:
            self.refuse(f"one of {', '.join(known)}", "unknown word")
        return text


def _shown(name: str) -> str:
    """A key as messages show it, in one line."""
    return name if name and name.isprintable() else repr(name)
