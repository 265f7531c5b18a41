"""Plug-ins found, chosen, loaded, and named when they fail; the distributions are made by the tests."""

from __future__ import annotations

import importlib.metadata
import sys

import distributions as distributions_module
import pytest
from distributions import HEAD, Installer

from sevplug.core.errors import PluginError
from sevplug.core.plugins import PluginInfo, PluginManager, Selection, discover, load_plugins, select


def refusal(*words: str) -> str:
    """The one line that loading with these ``-P`` words ends in."""
    with pytest.raises(PluginError) as refused:
        load_plugins(Selection.parse([*words, *NOT_OURS]))
    assert "\n" not in str(refused.value)
    return str(refused.value)


NOT_OURS = tuple(f"no:{info.name}" for info in discover())


def load(*words: str) -> PluginManager:
    """A manager with the plug-ins that ``words`` add and none of sevplug's own."""
    return load_plugins(Selection.parse([*words, *NOT_OURS]))


class Named:
    name = "given-a-name"


class Nameless:
    def __init__(self) -> None:
        self.made = True


def test_plug_ins_that_are_not_installed_are_added_by_their_own_names() -> None:
    manager = load_plugins(Selection.parse(NOT_OURS), Named(), Nameless, distributions_module)
    assert manager.names == ["Nameless", "distributions", "given-a-name"]
    assert manager.get_plugin("Nameless").made  # a class is made anew
    with pytest.raises(PluginError, match="plug-in 'given-a-name' is there twice; the second comes from this process"):
        load_plugins(Selection.parse(NOT_OURS), Named(), Named())


# -- finding ---------------------------------------------------------------------------------------------------------


def test_sevplugs_own_plug_ins_are_found_by_their_entry_points_and_on() -> None:
    found = {info.name: info for info in discover()}
    assert {"sev", "measurement", "secret-injection", "logging", "pc-board", "qmp"} <= set(found)
    assert all(info.on_by_default for info in found.values() if info.distribution == "sevplug")


def test_another_distributions_plug_in_is_found_unimported_and_off(installer: Installer) -> None:
    installer("extra-dist", {"extra_one.py": "raise RuntimeError('imported')"}, extra="extra_one")
    (info,) = [info for info in discover() if info.name == "extra"]
    assert (info.module, info.distribution, info.version) == ("extra_one", "extra-dist", "1.2")
    assert (info.origin, info.on_by_default) == ("extra-dist 1.2", False)
    assert "extra" not in load().names


def test_what_is_blocked_is_not_imported(installer: Installer) -> None:
    installer("extra-dist", {"extra_one.py": "raise RuntimeError('imported')"}, extra="extra_one")
    assert load("no:extra").names == []
    assert "extra_one" not in sys.modules


# -- choosing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "added", "blocked"),
    [
        ([], set(), set()),
        (["a"], {"a"}, set()),
        (["no:a"], set(), {"a"}),
        (["a", "no:b", "c"], {"a", "c"}, {"b"}),
        (["a", "no:a"], set(), {"a"}),
        (["no:a", "a"], {"a"}, set()),
        (["no", "nope"], {"no", "nope"}, set()),
    ],
)
def test_the_last_word_on_a_name_wins(words: list[str], added: set[str], blocked: set[str]) -> None:
    assert Selection.parse(words) == Selection(frozenset(added), frozenset(blocked))


@pytest.mark.parametrize("word", ["", "no:"])
def test_a_word_without_a_name_is_refused(word: str) -> None:
    with pytest.raises(PluginError) as refused:
        Selection.parse([word])
    assert str(refused.value) == f"-P {word}: expected the name of a plug-in, or no: and a name"


@pytest.mark.parametrize("word", ["ghost", "no:ghost"])
def test_a_name_that_nobody_brings_is_refused_with_those_that_are_there(word: str) -> None:
    with pytest.raises(PluginError) as refused:
        select(discover(), Selection.parse([word]))
    assert str(refused.value).startswith(f"-P {word}: no such plug-in is installed; there are ")
    assert "sev" in str(refused.value).split("there are ")[1].split(", ")


def info(name: str, distribution: str) -> PluginInfo:
    entry_point = importlib.metadata.EntryPoint(name, "nowhere", "sevplug")
    return PluginInfo(name, "nowhere", distribution, "1", entry_point)


@pytest.mark.parametrize(
    ("words", "chosen"),
    [([], ["own"]), (["other"], ["own", "other"]), (["no:own"], []), (["other", "no:own"], ["other"])],
)
def test_own_plug_ins_are_on_and_others_on_request(words: list[str], chosen: list[str]) -> None:
    installed = [info("own", "sevplug"), info("other", "extra-dist")]
    assert [one.name for one in select(installed, Selection.parse(words))] == chosen


def test_two_plug_ins_of_one_name_are_refused_with_both_distributions(installer: Installer) -> None:
    installer("extra-a", {"extra_a.py": ""}, twin="extra_a")
    installer("extra-b", {"extra_b.py": ""}, twin="extra_b")
    assert refusal("twin") == (
        "plug-in 'twin' is there twice, from extra-a 1.2 and extra-b 1.2: "
        "uninstall one, or leave both out with -P no:twin"
    )
    assert load().names == []
    assert load("no:twin").names == []


def test_another_distribution_cannot_take_the_name_of_a_built_in_one(installer: Installer) -> None:
    installer("extra-dist", {"extra_one.py": ""}, sev="extra_one")
    with pytest.raises(PluginError, match=r"^plug-in 'sev' is there twice, from extra-dist 1\.2 and sevplug "):
        load_plugins()


# -- loading ---------------------------------------------------------------------------------------------------------


def test_a_module_is_a_plug_in(installer: Installer) -> None:
    installer(
        "extra-dist", {"extra_one.py": HEAD + "@hookimpl\ndef rdmsr(index): return index + 1\n"}, extra="extra_one"
    )
    manager = load("extra")
    assert manager.names == ["extra"]
    assert manager.hook.rdmsr(cpu=None, index=4) == 5


def test_a_class_is_made_anew_for_each_manager(installer: Installer) -> None:
    source = HEAD + (
        "class Counter:\n"
        "    def __init__(self): self.count = 0\n"
        "    @hookimpl\n"
        "    def rdmsr(self, index):\n"
        "        self.count += 1\n"
        "        return self.count\n"
    )
    installer("extra-dist", {"extra_one.py": source}, extra="extra_one:Counter")
    first, second = load("extra"), load("extra")
    assert [first.hook.rdmsr(cpu=None, index=0) for _ in range(3)] == [1, 2, 3]
    assert second.hook.rdmsr(cpu=None, index=0) == 1


@pytest.mark.parametrize(
    ("source", "reference", "reason"),
    [
        ("raise RuntimeError('two\\nlines')", "extra_one", "RuntimeError: two lines"),
        ("raise ValueError", "extra_one", "ValueError"),
        (
            "import a_module_that_is_not_there",
            "extra_one",
            "ModuleNotFoundError: No module named 'a_module_that_is_not_there'",
        ),
        ("x = (", "extra_one", "SyntaxError: '(' was never closed (extra_one.py, line 1)"),
        ("raise SystemExit(3)", "extra_one", "SystemExit: 3"),
        ("", "extra_one:Missing", "AttributeError: module 'extra_one' has no attribute 'Missing'"),
        ("class Needs:\n    def __init__(self, something): pass", "extra_one:Needs", None),
    ],
)
def test_a_plug_in_that_fails_at_import_is_named_with_its_distribution_and_the_flag(
    installer: Installer, source: str, reference: str, reason: str | None
) -> None:
    installer("extra-dist", {"extra_one.py": source}, extra=reference)
    text = refusal("extra")
    assert text.startswith("plug-in 'extra' from extra-dist 1.2 cannot be imported (")
    assert text.endswith("); leave it out with -P no:extra")
    if reason is not None:
        assert f"({reason})" in text


def test_a_function_without_the_marker_is_no_hook(installer: Installer) -> None:
    installer(
        "extra-dist", {"extra_one.py": "def rdmsr(index): return 1\ndef no_such_hook(): pass\n"}, extra="extra_one"
    )
    assert load("extra").hook.rdmsr(cpu=None, index=0) is None


def test_a_plug_in_may_publish_hooks_of_its_own_that_another_implements(installer: Installer) -> None:
    specs = "import pluggy\n@pluggy.HookspecMarker('sevplug')\ndef extra_hook(number): pass\n"
    publisher = HEAD + "import extra_specs\n@hookimpl\ndef add_hookspecs(manager): manager.add_hookspecs(extra_specs)\n"
    user = HEAD + "@hookimpl\ndef extra_hook(number): return number * 2\n"
    modules = {"extra_specs.py": specs, "extra_publisher.py": publisher, "extra_user.py": user}
    installer("extra-dist", modules, publisher="extra_publisher", user="extra_user")
    assert load("publisher", "user").hook.extra_hook(number=4) == [8]
    assert "unknown hook 'extra_hook'" in refusal("user")


def test_a_name_can_be_registered_once() -> None:
    manager = PluginManager()
    manager.add(object(), "mine")
    with pytest.raises(PluginError, match=r"^plug-in 'mine' is there twice; the second comes from this process$"):
        manager.add(object(), "mine")


def test_managers_share_no_plug_in() -> None:
    first, second = PluginManager(), PluginManager()
    first.add(object(), "mine")
    assert (first.names, second.names) == (["mine"], [])
