"""Finding -P before the command line is parsed."""

from __future__ import annotations

import pytest

from sevplug.cli.selection import Plugins, plugin_words
from sevplug.core.errors import ConfigError, PluginError

BUILT_IN = {
    "c-bit-checker",
    "phases",
    "progress",
    "report",
    "direct-boot",
    "gdb",
    "guest-watch",
    "logging",
    "measurement",
    "pc-board",
    "qmp",
    "secret-injection",
    "sev",
}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], []),
        (["run", "-P", "x"], ["x"]),
        (["run", "-Px", "--plugin", "no:y", "--plugin=z"], ["x", "no:y", "z"]),
        (["-P", "x", "run", "-P", "no:x"], ["x", "no:x"]),
        (["run", "--", "-P", "x"], []),
        (["run", "-P"], []),
        (["run", "-m", "256M", "-P", "no:sev", "-S"], ["no:sev"]),
    ],
)
def test_every_spelling_is_found(arguments: list[str], words: list[str]):
    assert plugin_words(arguments) == words


def test_a_word_that_only_click_found_is_refused():
    with pytest.raises(ConfigError, match=r"^-P: expected a word of its own, as in -P NAME$"):
        Plugins([]).check(["x"])


def test_an_empty_name_is_refused():
    with pytest.raises(PluginError, match=r"^-P no:: expected the name of a plug-in, or no: and a name$"):
        _ = Plugins(["no:"]).selection


def test_what_a_command_leaves_out_is_not_loaded_even_when_it_was_asked_for():
    loaded = Plugins(["logging", *(f"no:{name}" for name in BUILT_IN - {"logging"})])
    assert loaded.load("logging").names == []


def test_plugins_are_loaded_once():
    plugins = Plugins([f"no:{name}" for name in BUILT_IN - {"logging"}])
    assert plugins.load() is plugins.load()
