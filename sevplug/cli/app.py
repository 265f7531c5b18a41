"""The ``sevplug`` group: commands imported when they are called for, and errors turned into exit statuses."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

import click

from sevplug import __version__
from sevplug.cli.complaints import Complaints, EndedBadly, wants_json
from sevplug.cli.selection import Plugins, plugin_words
from sevplug.core.errors import ConfigError, LaunchRefused, SevplugError

USAGE = 2
NOT_IN_ORDER = 1
LAUNCH_REFUSED = 4
INTERRUPTED = 130

# command -> the module whose `command()` makes it
_COMMANDS = {
    "run": "sevplug.cli.run",
    "snapshot": "sevplug.cli.snapshot",
    "qemu": "sevplug.cli.qemu",
    "matrix": "sevplug.cli.matrix",
    "plugins": "sevplug.cli.plugins",
    "platform": "sevplug.cli.platform",
    "owner": "sevplug.cli.owner",
}


class Group(click.Group):
    """Commands of sevplug and of its plug-ins; neither are imported for a command that is not theirs."""

    _extended = False

    def list_commands(self, ctx: click.Context) -> list[str]:
        self._extend(ctx)
        return [*_COMMANDS, *sorted(self.commands)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in _COMMANDS:
            made: click.Command = importlib.import_module(_COMMANDS[cmd_name]).command()
            return made
        self._extend(ctx)
        return self.commands.get(cmd_name)

    def _extend(self, ctx: click.Context) -> None:
        if self._extended:
            return
        self._extended = True
        plugins = ctx.find_object(Plugins)
        if plugins is not None:
            manager = plugins.load()
            with manager.explained():
                manager.hook.add_commands(cli=self)


def make_group() -> click.Group:
    """The group of one command line; plug-ins may add to it, so that it is not shared."""

    @click.group(
        cls=Group,
        invoke_without_command=True,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )
    @click.option("-P", "--plugin", "words", multiple=True, metavar="[no:]NAME", help="Switch a plug-in on or off.")
    @click.version_option(__version__, prog_name="sevplug")
    @click.pass_context
    def group(ctx: click.Context, words: tuple[str, ...]) -> None:
        """Emulate AMD SEV guests: run, measure, attest and inject secrets, without SEV hardware.

        For functional tests only: it protects nothing.  "sevplug run" with no argument shows the whole workflow.

        Exit status: 0 the guest ended in order, 1 it did not, 2 usage or configuration, 3 time-out, 4 launch refused.
        """
        if ctx.invoked_subcommand is None:
            click.echo(ctx.get_help())

    return group


def run_app(arguments: Sequence[str]) -> int:
    """Run one command line (without the program's name) and return the exit status.

    What sevplug raises on purpose and click's own complaints become one line on stderr, a JSON object where the log is
    to be one.
    """
    complaints = Complaints(wants_json(arguments))
    plugins = Plugins(plugin_words(arguments))
    with complaints.only():
        try:
            return _run_group(arguments, plugins)
        except click.exceptions.Exit as done:
            return done.exit_code
        except click.ClickException as error:
            return complaints.error(error.format_message(), USAGE)
        except (click.Abort, KeyboardInterrupt):
            return complaints.error("interrupted", INTERRUPTED)
        except ConfigError as error:
            return complaints.error(str(error), USAGE)
        except LaunchRefused as error:
            return complaints.error(str(error), LAUNCH_REFUSED)
        except EndedBadly as error:
            return complaints.error(str(error), error.status)
        except SevplugError as error:
            return complaints.error(str(error), NOT_IN_ORDER)
        except BrokenPipeError:
            # Whoever read our output has seen enough.  What is still buffered must not be tried again at exit.
            _point_at_nothing(sys.stdout.fileno())
            return 0
        except Exception as error:
            # A command or an option of a plug-in's, or a mistake of our own.
            blamed = plugins.blame(error)
            if blamed is not None:
                return complaints.error(str(blamed), USAGE)
            return complaints.unexpected(error, NOT_IN_ORDER)


def _run_group(arguments: Sequence[str], plugins: Plugins) -> int:
    # Not `click.Group.main`: what it does with a broken pipe differs from release to release.
    group = make_group()
    with group.make_context("sevplug", list(arguments), obj=plugins) as ctx:
        status = group.invoke(ctx)
    if sys.stdout is not None:
        sys.stdout.flush()
    return status if isinstance(status, int) else 0


def _point_at_nothing(descriptor: int) -> None:
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, descriptor)
    os.close(nothing)
