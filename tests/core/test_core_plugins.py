"""Plug-ins found, chosen, loaded, and named when they fail; the distributions are made by the tests."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import distributions as distributions_module
import pytest
from assembler import assemble
from distributions import install
from machines import machine_with, run_guest

from sevplug.core.config import MachineConfig
from sevplug.core.errors import ConfigError, GuestFault, PluginError
from sevplug.core.machine import Machine
from sevplug.core.plugins import PluginInfo, PluginManager, Selection, discover, load_plugins, select

HEAD = "from sevplug.core.hookspecs import hookimpl\n"
Installer = Callable[..., None]


@pytest.fixture
def installer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Installer]:
    """Lays distributions into a folder of its own that is on ``sys.path`` while the test runs."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(tmp_path)

    def lay(name: str, modules: dict[str, str], **entry_points: str) -> None:
        install(tmp_path, name, modules, {key.replace("_", "-"): value for key, value in entry_points.items()})
        importlib.invalidate_caches()

    yield lay
    for name in set(sys.modules) - before:
        if name.startswith("extra"):
            del sys.modules[name]


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


@pytest.mark.parametrize(
    ("hook", "complaint"),
    [
        ("def cpuid(leaf, colour): pass", "colour"),
        ("def no_such_hook(cpu): pass", "no_such_hook"),
    ],
)
def test_hooks_that_do_not_fit_are_refused(installer: Installer, hook: str, complaint: str) -> None:
    installer("extra-dist", {"extra_one.py": f"{HEAD}@hookimpl\n{hook}\n"}, extra="extra_one")
    text = refusal("extra")
    assert text.startswith("plug-in 'extra' from extra-dist 1.2 does not fit this sevplug (")
    assert complaint in text
    assert text.endswith("); leave it out with -P no:extra")


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


def test_hook_specifications_that_cannot_be_published_name_the_plug_in(installer: Installer) -> None:
    source = HEAD + "import math\n@hookimpl\ndef add_hookspecs(manager): manager.add_hookspecs(math)\n"
    installer("extra-dist", {"extra_one.py": source}, extra="extra_one")
    text = refusal("extra")
    assert text.startswith("plug-in 'extra' from extra-dist 1.2 failed (ValueError: ")
    assert text.endswith("); leave it out with -P no:extra")


def test_a_name_can_be_registered_once() -> None:
    manager = PluginManager()
    manager.add(object(), "mine")
    with pytest.raises(PluginError, match=r"^plug-in 'mine' is there twice; the second comes from this process$"):
        manager.add(object(), "mine")


def test_managers_share_no_plug_in() -> None:
    first, second = PluginManager(), PluginManager()
    first.add(object(), "mine")
    assert (first.names, second.names) == (["mine"], [])


# -- raising in a hook -----------------------------------------------------------------------------------------------

COLD = {
    "machine_init": "machine",
    "add_devices": "machine",
    "add_launch_regions": "machine",
    "vcpu_init": "cpu",
    "address_rule": "cpu",
    "launch_start": "machine",
    "guest_exit": "cpu",
    "notify": "machine",
}
BLAME = "plug-in 'extra' from extra-dist 1.2 failed (KeyError: 'nothing'); leave it out with -P no:extra"


def machine_of(manager: PluginManager) -> Machine:
    return Machine(MachineConfig(memory=1 << 20), manager)


@pytest.mark.parametrize("hook", COLD)
def test_a_cold_hook_that_raises_is_blamed_on_its_plug_in(installer: Installer, hook: str) -> None:
    source = f"{HEAD}@hookimpl\ndef {hook}({COLD[hook]}): return {{}}['nothing']\n"
    installer("extra-dist", {"extra_one.py": source}, extra="extra_one")
    with pytest.raises(PluginError) as refused, machine_of(load("extra")) as machine:
        # Without firmware there is nothing to run, which the guest shows soon.
        machine.run(timeout=1)
    assert str(refused.value) == BLAME
    assert isinstance(refused.value.__cause__, KeyError)


def test_a_summary_that_raises_is_blamed_on_its_plug_in(installer: Installer) -> None:
    source = HEAD + "@hookimpl\ndef summary(document): return {}['nothing']\n"
    installer("extra-dist", {"extra_one.py": source}, extra="extra_one")
    with machine_of(load("extra")) as machine:
        result = machine.run(timeout=0.1)
        with pytest.raises(PluginError) as refused:
            machine.summary(result)
    assert str(refused.value) == BLAME


def test_a_plug_in_that_raises_at_the_close_does_not_keep_the_machine_open(installer: Installer) -> None:
    source = HEAD + "@hookimpl\ndef machine_close(machine): return {}['nothing']\n"
    installer("extra-dist", {"extra_one.py": source}, extra="extra_one")
    machine = machine_of(load("extra"))
    with pytest.raises(PluginError) as refused:
        machine.close()
    assert str(refused.value) == BLAME
    assert machine.memory.ranges == []
    machine.close()


def test_of_two_plug_ins_in_a_call_the_inner_one_is_blamed(installer: Installer) -> None:
    outer = HEAD + "@hookimpl\ndef machine_init(machine): machine.plugins.hook.rdmsr(cpu=None, index=0)\n"
    inner = HEAD + "@hookimpl\ndef rdmsr(index): return {}['nothing']\n"
    installer(
        "extra-dist", {"extra_outer.py": outer, "extra_inner.py": inner}, outer="extra_outer", extra="extra_inner"
    )
    with pytest.raises(PluginError) as refused:
        machine_of(load("outer", "extra"))
    assert str(refused.value) == BLAME


def test_code_beside_the_plug_ins_own_module_is_the_plug_ins_too(installer: Installer) -> None:
    modules = {
        "extra_package/__init__.py": "",
        "extra_package/device.py": "def fail(): return {}['nothing']\n",
        "extra_package/hooks.py": HEAD
        + "from extra_package.device import fail\n"
        + "@hookimpl\ndef machine_init(machine): machine.later = fail\n",
    }
    installer("extra-dist", modules, extra="extra_package.hooks")
    manager = load("extra")
    with machine_of(manager) as machine, pytest.raises(KeyError) as caught:
        machine.later()  # type: ignore[attr-defined]
    assert str(manager.blame(caught.value)) == BLAME


def test_an_exception_of_nobodys_code_is_left_alone() -> None:
    manager = PluginManager()
    with pytest.raises(KeyError) as caught:
        {"theirs": 1}["ours"]
    assert manager.blame(caught.value) is None


def test_what_is_raised_on_purpose_is_not_blamed() -> None:
    manager = PluginManager()
    for error in (ConfigError("the user's"), GuestFault(13, 0)):
        assert manager.blame(error) is None


class Failing:
    """A plug-in with one hook that raises; the hook is given as its name and parameters."""

    name = "failing"


def failing(hook: str, parameters: str, when: str = "True") -> object:
    scope: dict[str, object] = {"__name__": __name__}
    exec(f"{HEAD}@hookimpl\ndef {hook}({parameters}):\n if {when}: raise RuntimeError('out of order')", scope)
    plugin = Failing()
    setattr(plugin, hook, scope[hook])
    return plugin


@pytest.mark.parametrize(
    ("hook", "parameters", "when", "guest"),
    [
        ("rdmsr", "cpu, index", "True", "mov ecx, 0x1a0; rdmsr; out 0xf4, al"),
        ("translate", "address", "address == 0x5000", "mov al, [0x5000]; out 0xf4, al"),
        ("wrmsr", "cpu, index, value", "True", "mov ecx, 0x1a0; wrmsr; out 0xf4, al"),
        ("cpuid", "leaf", "leaf == 7", "mov eax, 7; cpuid; out 0xf4, al"),
        ("intercept", "code", "True", "rdtsc; out 0xf4, al"),
        ("unknown_opcode", "code", "True", ".byte 0x0f, 0x0a; out 0xf4, al"),
    ],
)
def test_a_hook_that_raises_inside_a_running_guest_ends_with_its_name(
    hook: str, parameters: str, when: str, guest: str
) -> None:
    with pytest.raises(PluginError) as refused:
        run_guest(guest, plugins=[failing(hook, parameters, when)])
    assert str(refused.value) == (
        "plug-in 'failing' failed (RuntimeError: out of order); leave it out with -P no:failing"
    )


def test_a_machine_can_be_closed_after_a_plug_in_failed() -> None:
    with machine_with(assemble("rdtsc"), failing("rdmsr", "index")) as (machine, _board):
        with pytest.raises(PluginError):
            machine.run(timeout=5)
        machine.close()
        assert machine.memory.ranges == []
