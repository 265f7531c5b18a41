"""What a command imports, and what the group does without and with plug-ins of others."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sevplug import __version__
from sevplug.cli.app import run_app

pytestmark = pytest.mark.slow

RUN = "from sevplug.cli.app import run_app; status = run_app({arguments!r})"
FOREIGN = """
import click
from sevplug import hookimpl

@hookimpl
def add_options(command):
    command.params.append(click.Option(["--foreign"], default="nothing"))

@hookimpl
def add_commands(cli):
    cli.add_command(click.Command("hello", callback=lambda: click.echo("hello there")))

@hookimpl
def machine_init(machine):
    machine.warn(f"foreign={machine.config.options['foreign']}")
"""


def python(script: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    if folder is not None:
        script = f"import sys; sys.path.insert(0, {str(folder)!r})\n{script}"
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A folder that holds an installed distribution with one plug-in."""
    (tmp_path / "foreign_plugin.py").write_text(FOREIGN)
    info = tmp_path / "foreign_dist-2.5.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: foreign-dist\nVersion: 2.5\n")
    (info / "entry_points.txt").write_text("[sevplug]\nforeign = foreign_plugin\n")
    return tmp_path


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["plugins", "--json"],
        ["run", "--help"],
        ["platform", "verify", "--help"],
        ["owner", "expect", "--help"],
        ["matrix", "--help"],
    ],
)
def test_what_runs_no_guest_imports_nothing_heavy(arguments: list[str]):
    look = "\nimport sys; print(status, {'unicorn', 'rich', 'asyncio', 'structlog'} & set(sys.modules))"
    script = RUN.format(arguments=arguments) + look
    assert python(script).stdout.splitlines()[-1] == "0 set()"


def test_the_version_does_not_load_plugins():
    script = RUN.format(arguments=["--version"]) + "\nimport sys; print('sevplug.plugins.logging' in sys.modules)"
    assert python(script).stdout.splitlines() == [f"sevplug, version {__version__}", "False"]


def test_without_a_command_the_help_is_shown(capsys: pytest.CaptureFixture[str]):
    assert run_app([]) == 0
    told = capsys.readouterr().out
    assert "Exit status: 0 the guest ended in order" in told
    for name in ("run", "qemu", "matrix", "plugins", "platform", "owner"):
        assert f"\n  {name} " in told


def test_the_help_of_run_lists_the_options_of_plugins(capsys: pytest.CaptureFixture[str]):
    assert run_app(["run", "-h"]) == 0
    told = capsys.readouterr().out
    for option in ("--bios", "--secret", "--log-format", "--qmp"):
        assert option in told


def test_the_option_of_a_plugin_that_is_off_is_unknown(capsys: pytest.CaptureFixture[str]):
    assert run_app(["run", "-P", "no:logging", "--log-level", "debug"]) == 2
    assert capsys.readouterr().err.startswith("sevplug: error: No such option")


def test_plugins_lists_what_is_installed(capsys: pytest.CaptureFixture[str]):
    assert run_app(["plugins", "-P", "no:qmp"]) == 0
    heading, *lines = capsys.readouterr().out.splitlines()
    assert heading.split() == ["name", "version", "distribution", "on", "hooks"]
    rows = {line.split()[0]: line.split()[1:] for line in lines}
    assert rows["qmp"] == [__version__, "sevplug", "off", "-"]
    assert rows["logging"] == [
        __version__,
        "sevplug",
        "on",
        "add_options",
        "machine_close",
        "machine_init",
        "notify",
        "snapshot_save",
        "summary",
    ]


def test_plugins_may_be_listed_as_json(capsys: pytest.CaptureFixture[str]):
    assert run_app(["plugins", "--json", "-P", "no:qmp"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["qmp"] == {
        "name": "qmp",
        "version": __version__,
        "distribution": "sevplug",
        "on": False,
        "hooks": None,
    }
    assert rows["logging"]["on"] is True
    assert "notify" in rows["logging"]["hooks"]


def test_the_plugin_of_another_distribution_is_off_and_not_imported(foreign: Path):
    script = RUN.format(arguments=["plugins"]) + "\nimport sys; print('foreign_plugin' in sys.modules)"
    done = python(script, foreign)
    row = next(line for line in done.stdout.splitlines() if line.startswith("foreign"))
    assert row.split() == ["foreign", "2.5", "foreign-dist", "off", "-"]
    assert done.stdout.splitlines()[-1] == "False"


@pytest.mark.parametrize("arguments", [["-P", "foreign", "hello"], ["--plugin=foreign", "hello"]])
def test_a_plugin_adds_a_command(arguments: list[str], foreign: Path):
    assert python(RUN.format(arguments=arguments), foreign).stdout == "hello there\n"


def test_a_plugin_adds_an_option_whose_value_reaches_the_machine(foreign: Path):
    arguments = ["run", "-P", "foreign", "--foreign", "something", "--serial", "null"]
    done = python(RUN.format(arguments=arguments), foreign)
    assert "warning          foreign=something" in done.stderr


def test_a_plugin_that_cannot_be_imported_is_named(foreign: Path):
    (foreign / "foreign_plugin.py").write_text("raise RuntimeError('broken\\nin two lines')")
    done = python(RUN.format(arguments=["run", "-P", "foreign"]) + "; print(status)", foreign)
    assert done.stdout == "2\n"
    assert done.stderr == (
        "sevplug: error: plug-in 'foreign' from foreign-dist 2.5 cannot be imported "
        "(RuntimeError: broken in two lines); leave it out with -P no:foreign\n"
    )


def test_a_plugin_that_fails_in_a_hook_is_named(foreign: Path):
    text = FOREIGN.replace("machine.warn(", "raise RuntimeError(")
    (foreign / "foreign_plugin.py").write_text(text)
    done = python(RUN.format(arguments=["run", "-P", "foreign", "--log-level", "error"]) + "; print(status)", foreign)
    assert done.stdout == "2\n"
    assert done.stderr == (
        "sevplug: error: plug-in 'foreign' from foreign-dist 2.5 failed in machine_init "
        "(RuntimeError: foreign=nothing, foreign_plugin.py:15); "
        "leave it out with -P no:foreign\n"
    )
