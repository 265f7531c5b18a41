"""A machine's state taken down whole, and put back: the clock, devices, plug-ins, the launch, the CPU, memory.

Who has state and has not said how it is saved is refused by name; nothing is left out in silence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

import pluggy

from sevplug.core import result
from sevplug.core.errors import SnapshotError
from sevplug.core.snapshot.identity import check_identity, identity_of
from sevplug.core.snapshot.image import image_of
from sevplug.core.snapshot.saved_state import SavedState
from sevplug.core.snapshot.snapshot import Snapshot

if TYPE_CHECKING:
    from sevplug.core.machine import Machine

_SAVE, _LOAD = "snapshot_save", "snapshot_load"
# What a state that is none raises where it is used.
_MISFITS: Final = (KeyError, TypeError, ValueError, IndexError, OverflowError, AttributeError)


def take(machine: Machine) -> Snapshot:
    """The snapshot of a machine that stands between two instructions; see `Machine.snapshot`."""
    _refuse_strangers(machine)
    machine.engine.rest()
    clock = machine.clock
    state: dict[str, Any] = {"clock": clock.save(), "machine": machine.save_life()}
    state["devices"] = [dict(device.save()) for device in machine.devices]
    saved = {name: _answer(name, call(machine=machine)) for name, call in _implementations(machine, _SAVE)}
    state["plugins"] = {name: dict(answer.data) for name, answer in saved.items()}
    options: dict[str, Any] = {}
    for answer in saved.values():
        options.update(answer.options)
    state["engine"] = machine.engine.save()
    state["memory"] = [None if entry.forms is None else entry.forms.save() for entry in machine.memory.ranges]
    for timer in clock.unsaved():
        owner = getattr(timer.callback, "__qualname__", repr(timer.callback))
        raise SnapshotError(f"the timer that calls {owner} is armed, and nobody saves it")
    return Snapshot(identity_of(machine), state, options, _private(machine, saved), image_of(machine.memory))


def put_back(machine: Machine, snapshot: Snapshot) -> None:
    """`machine` becomes what it was; see `Machine.restore`.

    `SnapshotError` when the snapshot is not of such a machine, which stays as it is then; when its state does not fit
    all the same, the machine has ended.
    """
    where = snapshot.where
    _refuse_strangers(machine)
    check_identity(snapshot.identity, identity_of(machine), where)
    if machine.engine.inside:
        raise SnapshotError(f"{where}: the guest is in the middle of an instruction")
    what = "the machine"
    try:
        state = snapshot.state
        loads = dict(_implementations(machine, _LOAD))
        what = "memory"
        for entry, forms in zip(machine.memory.ranges, state["memory"], strict=True):
            if (entry.forms is None) != (forms is None):
                raise SnapshotError(f"{where}: memory is encrypted in one of the two and not in the other")
            if entry.forms is not None:
                entry.forms.load(forms)
        snapshot.image.map_into(machine.memory)
        what = "the clock"
        machine.clock.load(state["clock"])
        what = "the machine"
        machine.load_life(state["machine"])
        for device, held in zip(machine.devices, state["devices"], strict=True):
            what = f"device {device.name}"
            device.load(held)
        for name, held in state["plugins"].items():
            what = f"plug-in {name}"
            if name in loads:
                loads[name](machine=machine, state=held)
        what = "the launch"
        if bool(state["machine"]["launched_as"]) != (machine.launch.context is not None):
            raise SnapshotError(f"{where}: no plug-in has taken up the launch")
        what = "the CPU"
        machine.engine.load(state["engine"])
    except _MISFITS as error:
        machine.end(result.STOPPED, "a snapshot could not be restored")
        raise SnapshotError(f"{where}: the state of {what} does not fit ({type(error).__name__})") from error
    except BaseException:
        machine.end(result.STOPPED, "a snapshot could not be restored")
        raise
    for listener in machine.on_restore:
        listener()


def _private(machine: Machine, saved: Mapping[str, SavedState]) -> str | None:
    """Why the snapshot may be in no file without a key, or None."""
    if any(entry.forms is not None for entry in machine.memory.ranges):
        return "the guest's memory is encrypted"
    for name, answer in saved.items():
        if answer.secret:
            return f"plug-in {name} keeps secrets in it"
    return None


def _implementations(machine: Machine, hook: str) -> Iterator[tuple[str, Callable[..., Any]]]:
    """(plug-in, function of keywords) for each implementation of ``hook``; a wrapper is none."""
    manager = machine.plugins
    for implementation in getattr(manager.hook, hook).get_hookimpls():
        if implementation.hookwrapper or implementation.wrapper:
            continue
        yield manager.get_name(implementation.plugin) or "?", _with_its_arguments(implementation)


def _with_its_arguments(implementation: pluggy.HookImpl) -> Callable[..., Any]:
    return lambda **given: implementation.function(**{name: given[name] for name in implementation.argnames})


def _answer(name: str, answer: Any) -> SavedState:
    if answer is None:
        return SavedState()
    if not isinstance(answer, SavedState):
        raise SnapshotError(f"plug-in {name!r}: snapshot_save gave a {type(answer).__name__}, expected a SavedState")
    return answer


def _refuse_strangers(machine: Machine) -> None:
    """`SnapshotError` where a plug-in may have state that nobody would save."""
    manager = machine.plugins
    savers = {name for name, _call in _implementations(machine, _SAVE)}
    for name, plugin in manager.list_name_plugin():
        if plugin is None or isinstance(plugin, ModuleType) or name in savers:
            continue
        if getattr(plugin, "__dict__", None) or getattr(type(plugin), "__slots__", ()):
            raise SnapshotError(f"plug-in {name!r} has state, and no hook snapshot_save that would save it")
    for key, value in [*machine.private.items(), *machine.cpu.private.items()]:
        # A device saves itself; other things belong to the plug-in whose name theirs begins with.
        owned = any(key == name or key.startswith(f"{name}-") for name in savers)
        if not owned and not any(value is device for device in machine.devices):
            raise SnapshotError(f"{key!r} was hung on the machine by a plug-in without the hook snapshot_save")
