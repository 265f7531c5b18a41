"""Which plug-ins a command line asks for, found before the line is parsed.

Plug-ins add options and commands, so they have to be loaded before click can tell one word from another.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from sevplug.core.errors import ConfigError, PluginError
from sevplug.core.plugins import PluginManager, Selection, load_plugins


def plugin_words(arguments: Sequence[str]) -> list[str]:
    """The words of every ``-P WORD``, ``-PWORD``, ``--plugin WORD`` and ``--plugin=WORD``, in order, up to ``--``."""
    words: list[str] = []
    remaining = iter(arguments)
    for argument in remaining:
        if argument == "--":
            break
        if argument in ("-P", "--plugin"):
            words.extend(word for word in [next(remaining, None)] if word is not None)
        elif argument.startswith("--plugin="):
            words.append(argument.removeprefix("--plugin="))
        elif argument.startswith("-P"):
            words.append(argument.removeprefix("-P"))
    return words


@attrs.define
class Plugins:
    """The plug-ins of one command line, loaded when a command first needs them."""

    words: list[str]
    _manager: PluginManager | None = None

    @property
    def selection(self) -> Selection:
        """What ``-P`` said.  `PluginError` for an empty name."""
        return Selection.parse(self.words)

    def load(self, *left_out: str) -> PluginManager:
        """The manager with every plug-in that is wanted, but for ``left_out``; the first call decides."""
        if self._manager is None:
            chosen = self.selection
            self._manager = load_plugins(
                Selection(chosen.added - {*left_out}, chosen.blocked | {*left_out}) if left_out else chosen
            )
        return self._manager

    def blame(self, error: BaseException) -> PluginError | None:
        """As `PluginManager.blame`; None too while nothing is loaded."""
        return None if self._manager is None else self._manager.blame(error)

    def check(self, parsed: Sequence[str]) -> None:
        """`ConfigError` when click found other ``-P`` words than `plugin_words` did."""
        if any(word not in self.words for word in parsed):
            raise ConfigError("-P: expected a word of its own, as in -P NAME")
