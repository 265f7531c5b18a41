"""Cells beside the command line of ``run``: what their words may not say, and which are asked for by name."""

from __future__ import annotations

from collections.abc import Sequence

import click

from sevplug.cli import run
from sevplug.cli.options import parse_memory
from sevplug.core.errors import ConfigError
from sevplug.matrix.values import Cell

# What the matrix gives to each run itself -> what to write instead.
_OURS = {"timeout": "the key timeout", "summary": "--json"}


def check_words(cell: Cell, file: str) -> None:
    """Read ``cell``'s words as `run` does, before any guest is run.

    Only its own options are known here: those of plug-ins, and what is in the files, are for the cell's process.
    `ConfigError` names ``file`` and cell.
    """
    command = run.command()
    context = click.Context(command, ignore_unknown_options=True, allow_extra_args=True)
    try:
        given, _rest, _order = command.make_parser(context).parse_args(list(cell.words))
        for name, instead in _OURS.items():
            if given.get(name) is not None:
                raise ConfigError(f"--{name} is not for a cell, expected {instead}")
        if isinstance(given.get("memory"), str):
            parse_memory("-m", given["memory"])
    except click.UsageError as error:
        raise ConfigError(f"{file}: cell {cell.name}: {error.format_message()}") from None
    except ConfigError as error:
        raise ConfigError(f"{file}: cell {cell.name}: {error}") from None


def select(cells: Sequence[Cell], expression: str | None) -> tuple[Cell, ...]:
    """The cells whose names ``expression`` matches, all for None; `ConfigError` where that is no cell."""
    if expression is None:
        return tuple(cells)
    chosen = tuple(cell for cell in cells if matches(expression, cell.name))
    if not chosen:
        raise ConfigError(f"-k {expression}: no cell has such a name, expected a part of one that --list shows")
    return chosen


def matches(expression: str, name: str) -> bool:
    """Whether ``name`` has the texts of ``expression``, upper and lower case alike.

    As with pytest's ``-k``, `not` binds more than `and`, and `and` more than `or`; there are no parentheses.
    """
    return any(all(_has(term, name) for term in option.split(" and ")) for option in expression.split(" or "))


def _has(term: str, name: str) -> bool:
    text = term.strip().lower()
    wanted = not text.startswith("not ")
    return (text.removeprefix("not ").strip() in name.lower()) is wanted
