"""The commands of sevplug as Markdown, from the code: a page has them where it says `{{ commands }}`.

Options that a plug-in adds are found by asking each plug-in alone, and shown with its name. Only plug-ins that come
with sevplug are asked, as those of other distributions are off by default.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import click
from sphinx.application import Sphinx

from sevplug.cli.app import make_group
from sevplug.cli.machine_command import MachineCommand
from sevplug.cli.selection import Plugins

PLACE = "{{ commands }}"
_WRITTEN_DEFAULT = re.compile(r"\s*\[default: (.*?)\]")


def commands_page() -> str:
    """Every command with its arguments and options, as MyST."""
    plugins = Plugins([])
    group = make_group()
    with group.make_context("sevplug", [], obj=plugins) as context:
        return "\n".join(_command(group, context, "sevplug", plugins))


def _command(command: click.Command, context: click.Context, path: str, plugins: Plugins) -> Iterator[str]:
    yield f"## {path}\n"
    yield f"```{{program}} {path}\n```\n"
    yield f"```text\n{_usage(command, context, path)}\n```\n"
    yield _help(command.help or "")
    yield from _options([parameter for parameter in command.params if isinstance(parameter, click.Option)])
    if isinstance(command, MachineCommand):
        for name, options in _of_plugins(command, plugins):
            yield f"Of the plug-in `{name}`:\n"
            yield from _options(options)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from _command(inner, click.Context(inner, context, name, obj=plugins), f"{path} {name}", plugins)


def _usage(command: click.Command, context: click.Context, path: str) -> str:
    return " ".join([path, *command.collect_usage_pieces(context)])


def _of_plugins(command: MachineCommand, plugins: Plugins) -> Iterator[tuple[str, list[click.Option]]]:
    manager = plugins.load()
    implementations = manager.hook.add_options.get_hookimpls()
    names = sorted(implementation.plugin_name for implementation in implementations)
    for name in names:
        others = [manager.get_plugin(other) for other in names if other != name]
        alone = click.Command("alone")
        manager.subset_hook_caller("add_options", others)(command=alone)
        options = [parameter for parameter in alone.params if isinstance(parameter, click.Option)]
        if options:
            yield name, options


def _options(options: list[click.Option]) -> Iterator[str]:
    for option in options:
        spelled = ", ".join(option.opts + option.secondary_opts)
        value = "" if option.is_flag else f" {_metavar(option)}"
        text = _WRITTEN_DEFAULT.sub("", option.help or "")
        notes = []
        if option.required:
            notes.append("Required.")
        if default := _default(option):
            notes.append(f"Default: {default}.")
        yield f"````{{option}} {spelled}{value}\n{' '.join([_inline(text), *notes]).strip()}\n````\n"


def _metavar(option: click.Option) -> str:
    if isinstance(option.type, click.Choice):
        return "|".join(map(str, option.type.choices))
    return option.metavar or option.type.name.upper()


def _default(option: click.Option) -> str:
    written = _WRITTEN_DEFAULT.search(option.help or "")
    if written:
        return written[1]
    if option.is_flag or option.multiple or option.default is None or not isinstance(option.default, str | int | float):
        return ""
    return f"`{option.default}`"


def _help(text: str) -> str:
    """click's help: paragraphs, those that begin with `\\b` as they are."""
    paragraphs = []
    for paragraph in re.split(r"\n\s*\n", text.strip()):
        if paragraph.startswith("\b"):
            paragraphs.append("```text\n" + re.sub(r"(?m)^  ", "", paragraph.removeprefix("\b\n")) + "\n```")
        else:
            paragraphs.append(_inline(" ".join(paragraph.split())))
    return "\n\n".join(paragraphs) + "\n"


def _inline(text: str) -> str:
    """Plain text as Markdown that shows it unchanged, options and assignments in it as code."""
    words = re.sub(r"([\\*_`<>\[\]{}])", r"\\\1", text)
    return re.sub(r"(?<![\w`-])(--?[A-Za-z][\w-]*)", r"`\1`", words)


def _insert(_app: Sphinx, _page: str, source: list[str]) -> None:
    if PLACE in source[0]:
        source[0] = source[0].replace(PLACE, commands_page())


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.connect("source-read", _insert)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
