"""What every command that builds a machine has: plug-ins' options, ``-P``, ``--timeout`` and ``--summary``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from sevplug.cli.options import parse_seconds
from sevplug.cli.selection import Plugins
from sevplug.core.plugins import PluginManager


class MachineCommand(click.Command):
    """A command whose plug-ins are loaded, and have added their options, before its arguments are parsed."""

    own: frozenset[str] = frozenset()

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        self.extend(ctx)
        return super().parse_args(ctx, args)

    def extend(self, ctx: click.Context, *left_out: str) -> None:
        """Load the plug-ins but for ``left_out`` and let them add options."""
        self.own = frozenset(parameter.name for parameter in self.params if parameter.name)
        manager = plugins_of(ctx).load(*left_out)
        with manager.explained():
            manager.hook.add_options(command=self)

    def plugin_options(self, values: dict[str, Any]) -> dict[str, Any]:
        """Those of the parsed ``values`` that belong to options of plug-ins."""
        return {name: value for name, value in values.items() if name not in self.own}


def plugins_of(ctx: click.Context) -> Plugins:
    """The plug-ins of this command line."""
    plugins = ctx.find_object(Plugins)
    assert plugins is not None
    return plugins


def loaded_plugins(ctx: click.Context, words: Sequence[str]) -> PluginManager:
    """The loaded plug-ins, once ``words`` (what click parsed as ``-P``) is known to be what was loaded by."""
    plugins = plugins_of(ctx)
    plugins.check(words)
    return plugins.load()


def words_option() -> click.Option:
    """A fresh ``-P``."""
    return click.Option(
        ["-P", "--plugin", "words"],
        multiple=True,
        metavar="[no:]NAME",
        help="Switch a plug-in on, or off with no:.  May be given again.",
    )


def common_options() -> list[click.Parameter]:
    """Fresh options that `run` and `qemu` share."""
    return [
        words_option(),
        click.Option(
            ["--timeout"],
            metavar="S",
            callback=lambda _ctx, _param, text: None if text is None else parse_seconds("--timeout", text),
            help="End the run after S seconds of wall time (exit status 3).",
        ),
        click.Option(["--summary"], metavar="FILE", help="Write how the run went, as JSON."),
        click.Option(
            ["--ram-digest"],
            is_flag=True,
            help="Add the SHA-256 of the guest's RAM at the end to the summary and the log.",
        ),
    ]


def session_options(values: dict[str, Any]) -> dict[str, Any]:
    """What the parsed ``values`` of `common_options` are to a session; ``-P`` was taken before."""
    return {name: values[name] for name in ("timeout", "summary", "ram_digest")}
