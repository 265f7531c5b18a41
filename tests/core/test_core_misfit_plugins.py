"""Plug-ins that do not fit: hooks with other arguments, another release of sevplug, plug-ins against each other."""

from __future__ import annotations

import sys

import pytest
from distributions import HEAD, Installer
from machines import manager_with

import sevplug
from sevplug.core import hookspecs
from sevplug.core.errors import PluginError
from sevplug.core.plugins import PluginManager, Selection, discover, load_plugins
from sevplug.core.requirements import unmet

OURS = tuple(f"no:{info.name}" for info in discover())
HOOKS = sorted(name for name, value in vars(hookspecs).items() if hasattr(value, f"{hookspecs.PROJECT}_spec"))
LEAVE_IT_OUT = "leave it out with -P no:extra"


def load(*words: str) -> PluginManager:
    """A manager with the plug-ins that ``words`` add and none of sevplug's own."""
    return load_plugins(Selection.parse([*words, *OURS]))


def refusal(*words: str) -> str:
    """The one line that loading with these ``-P`` words ends in."""
    with pytest.raises(PluginError) as refused:
        load(*words)
    assert "\n" not in str(refused.value)
    return str(refused.value)


# -- hooks -----------------------------------------------------------------------------------------------------------


def test_there_are_hooks_to_test() -> None:
    assert {"cpuid", "translate", "launch_update", "machine_close"} <= set(HOOKS)


@pytest.mark.parametrize("hook", HOOKS)
def test_an_argument_that_the_hook_has_not_is_named_with_the_hook(installer: Installer, hook: str) -> None:
    installer("extra-dist", {"extra_one.py": f"{HEAD}@hookimpl\ndef {hook}(colour): pass\n"}, extra="extra_one")
    text = refusal("extra")
    assert text.startswith(
        f"plug-in 'extra' from extra-dist 1.2 does not fit this sevplug (Plugin 'extra' for hook '{hook}'"
    )
    assert "colour" in text
    assert text.endswith(f"; {LEAVE_IT_OUT}")


def test_a_wrapper_that_is_none_is_refused(installer: Installer) -> None:
    source = f"{HEAD}@hookimpl(wrapper=True)\ndef cpuid(leaf): return 1\n"
    installer("extra-dist", {"extra_one.py": source}, extra="extra_one")
    text = refusal("extra")
    assert text.startswith("plug-in 'extra' from extra-dist 1.2 does not fit this sevplug (")
    assert "for hook 'cpuid'" in text
    assert text.endswith(f"; {LEAVE_IT_OUT}")


def test_a_hook_that_nobody_specifies_is_refused(installer: Installer) -> None:
    installer("extra-dist", {"extra_one.py": f"{HEAD}@hookimpl\ndef no_such_hook(cpu): pass\n"}, extra="extra_one")
    text = refusal("extra")
    assert text.startswith(
        "plug-in 'extra' from extra-dist 1.2 does not fit this sevplug and the plug-ins that are on "
        "(unknown hook 'no_such_hook' in plugin "
    )
    assert text.endswith(f"; {LEAVE_IT_OUT}")


SPECS = "import pluggy\n@pluggy.HookspecMarker('sevplug')\ndef extra_hook(number): pass\n"
PUBLISHER = HEAD + "import extra_specs\n@hookimpl\ndef add_hookspecs(manager): manager.add_hookspecs(extra_specs)\n"


def test_a_plug_in_that_builds_on_another_is_refused_where_that_is_off(installer: Installer) -> None:
    user = HEAD + "@hookimpl\ndef extra_hook(number): return number * 2\n"
    modules = {"extra_specs.py": SPECS, "extra_publisher.py": PUBLISHER, "extra_user.py": user}
    installer("extra-dist", modules, publisher="extra_publisher", extra="extra_user")
    assert load("publisher", "extra").hook.extra_hook(number=4) == [8]
    for words in (["extra"], ["publisher", "extra", "no:publisher"]):
        text = refusal(*words)
        assert "unknown hook 'extra_hook'" in text
        assert text.endswith(f"; {LEAVE_IT_OUT}")


def test_an_optional_hook_may_stay_without_a_specification(installer: Installer) -> None:
    user = HEAD + "@hookimpl(optionalhook=True)\ndef extra_hook(number): return number * 2\n"
    installer("extra-dist", {"extra_user.py": user}, extra="extra_user")
    assert load("extra").names == ["extra"]


def test_a_wrong_argument_of_another_plug_ins_hook_is_the_implementers(installer: Installer) -> None:
    user = HEAD + "@hookimpl\ndef extra_hook(colour): return 1\n"
    modules = {"extra_specs.py": SPECS, "extra_publisher.py": PUBLISHER, "extra_user.py": user}
    installer("extra-dist", modules, publisher="extra_publisher", extra="extra_user")
    text = refusal("publisher", "extra")
    assert text.startswith("plug-in 'extra' from extra-dist 1.2 does not fit ")
    assert "colour" in text


def test_hook_specifications_that_cannot_be_published_name_the_plug_in(installer: Installer) -> None:
    source = HEAD + "import math\n@hookimpl\ndef add_hookspecs(manager): manager.add_hookspecs(math)\n"
    installer("extra-dist", {"extra_one.py": source}, extra="extra_one")
    text = refusal("extra")
    assert text.startswith("plug-in 'extra' from extra-dist 1.2 failed in add_hookspecs (ValueError: ")
    assert text.endswith("); leave it out with -P no:extra")


# -- another release of sevplug --------------------------------------------------------------------------------------

RUNNING = sevplug.__version__


@pytest.mark.parametrize(
    ("requires", "wanted"),
    [
        ("sevplug>=5", ">=5"),
        ("sevplug<0.1", "<0.1"),
        ("SevPlug ==0.0.*", "==0.0.*"),
        ("sevplug[test]>=2,<3", "<3,>=2"),
        ("sevplug>=5; python_version >= '3'", ">=5"),
    ],
)
def test_a_plug_in_for_another_release_is_refused_and_not_imported(
    installer: Installer, requires: str, wanted: str
) -> None:
    modules = {"extra_one.py": "raise RuntimeError('imported')"}
    installer("extra-dist", modules, requires=("attrs>=1", requires), extra="extra_one")
    assert refusal("extra") == (
        f"plug-in 'extra' from extra-dist 1.2 is for sevplug {wanted}, found {RUNNING}: "
        "install releases that fit, or leave it out with -P no:extra"
    )
    assert "extra_one" not in sys.modules
    assert load("no:extra").names == []


@pytest.mark.parametrize(
    "requires",
    [
        "sevplug",
        f"sevplug>={RUNNING}",
        "sevplug>=5; python_version < '3'",
        "sevplug>=5; extra == 'later'",
        "sevplug-other>=5",
        "sevplug >=> nonsense",
    ],
)
def test_a_plug_in_whose_requirement_holds_is_loaded(installer: Installer, requires: str) -> None:
    installer("extra-dist", {"extra_one.py": ""}, requires=(requires,), extra="extra_one")
    assert load("extra").names == ["extra"]


@pytest.mark.parametrize(
    ("version", "wanted"),
    [("0.1.0", None), ("0.1.9", None), ("0.2.0", "<0.2,>=0.1"), ("1.0", "<0.2,>=0.1"), ("0.1.1.dev3+g12", None)],
)
def test_a_major_release_is_the_first_number_that_is_not_zero(version: str, wanted: str | None) -> None:
    assert unmet(["pluggy>=1.5", "sevplug>=0.1,<0.2"], "sevplug", version) == wanted


# -- against each other ----------------------------------------------------------------------------------------------


def blocking(other: str) -> str:
    return f"{HEAD}@hookimpl\ndef add_hookspecs(manager): manager.set_blocked({other!r})\n"


def test_a_plug_in_cannot_switch_another_off(installer: Installer) -> None:
    installer("extra-dist", {"extra_one.py": blocking("other")}, extra="extra_one")
    installer("extra-other", {"extra_two.py": ""}, other="extra_two")
    assert refusal("extra", "other") == (
        "plug-in 'extra' from extra-dist 1.2 does not work beside plug-in 'other' from extra-other 1.2; "
        "leave one of them out with -P no:extra or -P no:other"
    )
    assert load("extra").names == ["extra"]
    assert load("other").names == ["other"]


def test_of_two_that_block_each_other_either_works_alone(installer: Installer) -> None:
    installer("extra-dist", {"extra_one.py": blocking("other")}, extra="extra_one")
    installer("extra-other", {"extra_two.py": blocking("extra")}, other="extra_two")
    text = refusal("extra", "other")
    assert "'extra' from extra-dist 1.2" in text
    assert "'other' from extra-other 1.2" in text
    assert text.endswith(("-P no:extra or -P no:other", "-P no:other or -P no:extra"))
    for words in (["extra", "other", "no:other"], ["extra"]):
        assert load(*words).names == ["extra"]
    assert load("extra", "other", "no:extra", "no:other").names == []


def test_a_plug_in_cannot_switch_one_of_sevplugs_own_off(installer: Installer) -> None:
    installer("extra-dist", {"extra_one.py": blocking("logging")}, extra="extra_one")
    with pytest.raises(
        PluginError, match=r"'extra' from extra-dist 1\.2 does not work beside plug-in 'logging' from sev"
    ):
        load_plugins(Selection.parse(["extra"]))
    assert "logging" not in load_plugins(Selection.parse(["extra", "no:logging"])).names


def test_whoever_made_a_manager_may_take_a_plug_in_back() -> None:
    plugin = object()
    manager = manager_with(plugin)
    manager.unregister(plugin)
    assert manager.names == []
