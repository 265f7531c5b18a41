"""The bound form of a hook does what pluggy's own call does, without pluggy in the way."""

from __future__ import annotations

import itertools
from typing import Any

import attrs
import pluggy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from machines import manager_with

from sevplug.core.binding import bind_first
from sevplug.core.errors import GuestFault
from sevplug.core.hookspecs import PROJECT, hookimpl
from sevplug.core.plugins import PluginManager

PARAMETERS = ("cpu", "address", "access")
ARGUMENTS = ("the cpu", 0x1000, 5)
Call = tuple[int, tuple[Any, ...]]
Outcome = tuple[str, Any]


@attrs.frozen
class Implementation:
    """How one plug-in of the randomised test implements `translate`.

    ``takes``: the arguments it declares, in its order.  ``answer``: what it returns; an exception is raised.
    """

    takes: tuple[str, ...]
    answer: Any
    order: str = ""
    wrapper: str = ""


def plugin_of(number: int, spec: Implementation, calls: list[Call]) -> object:
    """A plug-in whose `translate` has exactly the parameters of ``spec``."""

    def body(*taken: Any) -> Any:
        calls.append((number, taken))
        if isinstance(spec.answer, BaseException):
            raise spec.answer
        return spec.answer

    def after(value: Any) -> Any:
        calls.append((number, ("after", value)))
        return spec.answer if spec.answer == "replaced" else value

    names = ", ".join(spec.takes)
    source = {
        "": f"def translate({names}): return body({names})",
        "wrapper": f"def translate({names}):\n value = yield\n return after(value)",
        "hookwrapper": f"def translate({names}):\n outcome = yield\n after(None)",
    }[spec.wrapper]
    scope: dict[str, Any] = {"body": body, "after": after}
    exec(source, scope)
    options: dict[str, Any] = {name: True for name in (spec.order, spec.wrapper) if name}
    plugin = type(f"Plugin{number}", (), {})()
    plugin.translate = pluggy.HookimplMarker(PROJECT)(scope["translate"], **options)
    return plugin


def outcome_of(call: Any) -> Outcome:
    try:
        return "returned", call()
    except Exception as error:
        return "raised", (type(error), error.args)


def compare(specs: list[Implementation]) -> PluginManager:
    """Call ``specs`` through pluggy and through the bound form; the results and every call must be the same."""
    calls: list[Call] = []
    manager = manager_with(*(plugin_of(number, spec, calls) for number, spec in enumerate(specs)))
    by_pluggy = outcome_of(lambda: manager.hook.translate(**dict(zip(PARAMETERS, ARGUMENTS, strict=True))))
    calls_by_pluggy = calls.copy()
    calls.clear()
    bound = bind_first(manager, "translate")
    assert (bound is None) == (not specs)
    if bound is not None:
        assert outcome_of(lambda: bound(*ARGUMENTS)) == by_pluggy
        assert calls == calls_by_pluggy
    return manager


takes = st.sampled_from(
    [order for length in range(4) for order in itertools.permutations(PARAMETERS, length)],
)
answers = st.one_of(
    st.none(),
    st.sampled_from([0, 1, False, True, "replaced", 1 << 62]),
    st.builds(GuestFault, st.integers(0, 31), st.none() | st.integers(0, 31)),
    st.just(ValueError("a plug-in's own trouble")),
)
plain = st.builds(Implementation, takes, answers, st.sampled_from(["", "tryfirst", "trylast"]))
wrapped = st.builds(
    Implementation,
    takes,
    answers,
    st.sampled_from(["", "tryfirst", "trylast"]),
    st.sampled_from(["wrapper", "hookwrapper"]),
)


@given(st.lists(plain, max_size=5))
def test_the_bound_form_does_what_pluggys_own_call_does(specs: list[Implementation]) -> None:
    compare(specs)


@given(st.lists(st.one_of(plain, wrapped), min_size=1, max_size=5))
def test_wrappers_among_the_implementations_change_nothing_of_that(specs: list[Implementation]) -> None:
    compare(specs)


@given(st.lists(plain, min_size=1, max_size=4))
def test_without_wrappers_pluggy_is_not_asked_at_the_call(specs: list[Implementation]) -> None:
    manager = compare(specs)
    bound = bind_first(manager, "translate")
    assert bound is not None
    seen: list[str] = []
    undo = manager.add_hookcall_monitoring(lambda name, *_rest: seen.append(name), lambda *_rest: None)
    outcome_of(lambda: bound(*ARGUMENTS))
    undo()
    assert seen == []


def test_nobodys_hook_is_none() -> None:
    assert bind_first(manager_with(), "translate") is None


def test_a_lone_implementation_with_every_argument_is_itself_the_bound_form() -> None:
    class Plugin:
        @hookimpl
        def translate(self, cpu: object, address: int, access: int) -> int:
            return address

    plugin = Plugin()
    assert bind_first(manager_with(plugin), "translate") == plugin.translate


def test_an_argument_with_a_default_is_left_at_its_default() -> None:
    class Plugin:
        @hookimpl
        def translate(self, address: int, cpu: object = "default", access: int = 9) -> Any:
            return (address, cpu, access)

    bound = bind_first(manager_with(Plugin()), "translate")
    assert bound is not None
    assert bound(*ARGUMENTS) == (0x1000, "default", 9)


class Answer:
    """Implements a hook with a wrapper around it, or without."""

    @hookimpl
    def translate(self, address: int) -> int:
        return address + 1


class Doubling:
    @hookimpl(wrapper=True)
    def translate(self) -> Any:
        return 2 * (yield)


def test_with_a_wrapper_the_call_goes_through_pluggy() -> None:
    manager = manager_with(Answer(), Doubling())
    bound = bind_first(manager, "translate")
    assert bound is not None
    assert bound(*ARGUMENTS) == 2 * 0x1001


@pytest.mark.parametrize("watch", ["tracing", "monitoring"])
def test_tracing_and_monitoring_make_the_bound_form_visible_to_them(watch: str) -> None:
    manager = manager_with(Answer())
    seen: list[str] = []
    if watch == "tracing":
        manager.trace.root.setwriter(seen.append)
        undo = manager.enable_tracing()
    else:
        undo = manager.add_hookcall_monitoring(lambda name, *_rest: seen.append(name), lambda *_rest: None)
    bound = bind_first(manager, "translate")
    assert bound is not None
    assert bound(*ARGUMENTS) == 0x1001
    undo()
    assert any("translate" in line for line in seen)


def test_when_the_monitoring_is_over_a_hook_is_bound_without_pluggy_again() -> None:
    plugin = Answer()
    manager = manager_with(plugin)
    manager.add_hookcall_monitoring(lambda *_: None, lambda *_: None)()
    seen: list[str] = []
    bound = bind_first(manager, "translate")
    manager.add_hookcall_monitoring(lambda name, *_rest: seen.append(name), lambda *_rest: None)
    assert bound is not None
    assert bound(*ARGUMENTS) == 0x1001
    assert seen == []
