"""``sevplug plugins``: what is installed, what is on, and which hooks each plug-in answers."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

import click

from sevplug.cli.machine_command import loaded_plugins, plugins_of, words_option
from sevplug.core.engine import compiled
from sevplug.core.plugins import PluginManager, discover
from sevplug.sevapi import compiled as compiled_cipher

_HEADINGS = ("name", "version", "distribution", "on", "hooks")


def command() -> click.Command:
    """A fresh ``plugins`` command."""
    return click.Command(
        "plugins",
        callback=_plugins,
        help="List the plug-ins that are installed.  One that is off is not imported, so its hooks are not known.",
        short_help="List the plug-ins that are installed.",
        params=[words_option(), click.Option(["--json", "as_json"], is_flag=True, help="Print JSON.")],
    )


@click.pass_context
def _plugins(ctx: click.Context, /, words: Sequence[str], as_json: bool) -> None:
    loaded = loaded_plugins(ctx, words)
    selection = plugins_of(ctx).selection
    rows = [
        {
            "name": info.name,
            "version": info.version,
            "distribution": info.distribution,
            "on": selection.wants(info),
            "hooks": _hooks(loaded, info.name) if selection.wants(info) else None,
        }
        for info in discover()
    ]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
    elif sys.stdout.isatty():
        _show_table(rows)
    else:
        _show_lines(rows)
    click.echo(f"page walk: {compiled.describe()}", err=True)
    click.echo(f"memory cipher: {compiled_cipher.describe()}", err=True)


def _hooks(plugins: PluginManager, name: str) -> list[str]:
    callers = plugins.get_hookcallers(plugins.get_plugin(name)) or []
    return sorted(caller.name for caller in callers)


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    hooks = "-" if row["hooks"] is None else " ".join(row["hooks"])
    return row["name"], row["version"], row["distribution"], "on" if row["on"] else "off", hooks


def _show_lines(rows: list[dict[str, Any]]) -> None:
    """A line a plug-in, columns aligned by blanks, for people and for ``awk``."""
    table = [_HEADINGS, *map(_cells, rows)]
    widths = [max(len(line[column]) for line in table) for column in range(len(_HEADINGS))]
    for line in table:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _show_table(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in _HEADINGS:
        table.add_column(heading, no_wrap=heading != "hooks")
    for row in rows:
        table.add_row(*map(Text, _cells(row)), style=None if row["on"] else "dim")
    Console().print(table)
