"""Hooks resolved once into plain callables.

A call through pluggy costs microseconds, a bound function some ten nanoseconds; ``translate`` is called a million times
in a boot.  So a machine asks here once: no implementation gives None, one gives the implementation itself, several a
small chain.  With a hook wrapper, or with pluggy's tracing or monitoring on, the answer is pluggy's own call, so that
the bound form never differs from it in what it does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pluggy

Bound = Callable[..., Any]


def bind_first(manager: pluggy.PluginManager, name: str) -> Bound | None:
    """The ``firstresult`` hook ``name`` as a function of positional arguments, in the order of its specification.

    None when no plug-in implements it.
    """
    if not getattr(manager.hook, name).get_hookimpls():
        return None
    functions = bind_each(manager, name)
    if len(functions) == 1:
        return functions[0]
    chain = tuple(functions)

    def first(*arguments: Any) -> Any:
        for function in chain:
            answer = function(*arguments)
            if answer is not None:
                return answer
        return None

    return first


def bind_each(manager: pluggy.PluginManager, name: str) -> list[Bound]:
    """The implementations of the hook ``name`` in the order of calling, as functions like that of `bind_first`.

    For a caller who has to reach each of them whatever another one does.  Pluggy's own call is one for all.
    """
    caller = getattr(manager.hook, name)
    implementations = list(reversed(caller.get_hookimpls()))
    parameters = list(caller.spec.argnames)
    if _needs_pluggy(manager, implementations):
        return [_through_pluggy(caller, parameters)]
    return [_with_arguments(impl.function, impl.argnames, parameters) for impl in implementations]


def _needs_pluggy(manager: pluggy.PluginManager, implementations: list[pluggy.HookImpl]) -> bool:
    wrapped = any(impl.hookwrapper or getattr(impl, "wrapper", False) for impl in implementations)
    # Tracing and monitoring replace the manager's inner call by a function of their own.
    watched = getattr(manager._inner_hookexec, "__name__", "") != "_multicall"
    return wrapped or watched


def _through_pluggy(caller: pluggy.HookCaller, parameters: list[str]) -> Bound:
    def call(*arguments: Any) -> Any:
        return caller(**dict(zip(parameters, arguments, strict=True)))

    return call


def _with_arguments(function: Bound, wanted: tuple[str, ...], parameters: list[str]) -> Bound:
    """``function`` itself when it takes every argument in order, else a function that picks those it takes."""
    if list(wanted) == parameters:
        return function
    positions = tuple(parameters.index(name) for name in wanted)

    def pick(*arguments: Any) -> Any:
        return function(*(arguments[position] for position in positions))

    return pick
