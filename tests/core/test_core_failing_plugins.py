"""Plug-ins that fail in one of their hooks: named with distribution, hook, place and the flag that leaves them out."""

from __future__ import annotations

import pytest
from assembler import assemble
from distributions import HEAD, Installer
from machines import machine_with, run_guest

from sevplug.core.config import MachineConfig
from sevplug.core.errors import ConfigError, PluginError
from sevplug.core.machine import Machine
from sevplug.core.plugins import PluginManager, Selection, discover, load_plugins

OURS = tuple(f"no:{info.name}" for info in discover())


def load(*words: str) -> PluginManager:
    """A manager with the plug-ins that ``words`` add and none of sevplug's own."""
    return load_plugins(Selection.parse([*words, *OURS]))


def blame(hook: str, place: str = "extra_one.py:3") -> str:
    return (
        f"plug-in 'extra' from extra-dist 1.2 failed in {hook} (KeyError: 'nothing', {place}); "
        "leave it out with -P no:extra"
    )


def machine_of(manager: PluginManager) -> Machine:
    return Machine(MachineConfig(memory=1 << 20), manager)


def test_a_failing_plug_in_is_named_with_the_cause(installer: Installer) -> None:
    source = HEAD + "@hookimpl\ndef machine_init(machine): return {}['nothing']\n"
    installer("extra-dist", {"extra_one.py": source}, extra="extra_one")
    with pytest.raises(PluginError) as refused:
        machine_of(load("extra"))
    assert str(refused.value) == blame("machine_init")
    assert isinstance(refused.value.__cause__, KeyError)


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("raise ValueError", "ValueError"),
        ("raise RuntimeError('two\\nlines')", "RuntimeError: two lines"),
        ("raise SystemExit(0)", "SystemExit: 0"),
        ("raise GuestFault(13, 0)", "GuestFault: guest exception 13"),
        ("raise OSError(12, 'no memory')", "OSError: [Errno 12] no memory"),
    ],
)
def test_whatever_is_raised_is_one_line(installer: Installer, statement: str, reason: str) -> None:
    source = f"{HEAD}from sevplug.core.errors import GuestFault\n@hookimpl\ndef add_devices(): {statement}\n"
    installer("extra-dist", {"extra_one.py": source}, extra="extra_one")
    with pytest.raises(PluginError) as refused:
        machine_of(load("extra"))
    assert str(refused.value) == (
        f"plug-in 'extra' from extra-dist 1.2 failed in add_devices ({reason}, extra_one.py:4); "
        "leave it out with -P no:extra"
    )


@pytest.mark.parametrize("extra", ["aaa", "zzz"])
def test_a_plug_in_that_raises_at_the_close_keeps_nothing_open(installer: Installer, extra: str) -> None:
    source = HEAD + "@hookimpl\ndef machine_close(machine): return {}['nothing']\n"
    good = HEAD + "@hookimpl\ndef machine_close(machine): machine.private['closed'] = True\n"
    installer("extra-dist", {"extra_one.py": source}, **{extra: "extra_one"})
    installer("extra-good", {"extra_two.py": good}, good="extra_two")
    machine = machine_of(load(extra, "good"))
    with pytest.raises(PluginError) as refused:
        machine.close()
    assert str(refused.value) == blame("machine_close").replace("'extra'", repr(extra)).replace(
        "no:extra", f"no:{extra}"
    )
    assert machine.memory.ranges == []
    assert machine.private["closed"] is True
    machine.close()


def test_a_wrapper_that_raises_is_named_too(installer: Installer) -> None:
    source = HEAD + "@hookimpl(wrapper=True)\ndef rdmsr(index):\n  yield\n  return {}['nothing']\n"
    installer("extra-dist", {"extra_one.py": source}, extra="extra_one")
    with machine_of(load("extra")) as machine, pytest.raises(PluginError) as refused, machine.plugins.explained():
        machine.cpu.msr_read(0x1A0)
    assert str(refused.value) == blame("rdmsr", "extra_one.py:5")


def test_of_two_plug_ins_in_a_call_the_inner_one_is_blamed(installer: Installer) -> None:
    outer = HEAD + "@hookimpl\ndef machine_init(machine): machine.plugins.hook.rdmsr(cpu=None, index=0)\n"
    inner = HEAD + "@hookimpl\ndef rdmsr(index): return {}['nothing']\n"
    installer(
        "extra-dist", {"extra_outer.py": outer, "extra_inner.py": inner}, outer="extra_outer", extra="extra_inner"
    )
    with pytest.raises(PluginError) as refused:
        machine_of(load("outer", "extra"))
    assert str(refused.value) == blame("rdmsr", "extra_inner.py:3")


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
    assert str(manager.blame(caught.value)) == (
        "plug-in 'extra' from extra-dist 1.2 failed (KeyError: 'nothing', device.py:1); leave it out with -P no:extra"
    )


def test_an_exception_of_nobodys_code_is_left_alone() -> None:
    manager = PluginManager()
    with pytest.raises(KeyError) as caught:
        {"theirs": 1}["ours"]
    assert manager.blame(caught.value) is None


def test_what_is_raised_on_purpose_is_not_blamed() -> None:
    assert PluginManager().blame(ConfigError("the user's")) is None


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
        f"plug-in 'failing' failed in {hook} (RuntimeError: out of order, <string>:4); leave it out with -P no:failing"
    )


def test_a_machine_can_be_closed_after_a_plug_in_failed() -> None:
    with machine_with(assemble("mov ecx, 0x10; rdmsr"), failing("rdmsr", "index")) as (machine, _board):
        with pytest.raises(PluginError):
            machine.run(timeout=5)
        machine.close()
        assert machine.memory.ranges == []
