"""``human-monitor-command``: a few commands of QEMU's monitor for people.

Texts are those of QEMU's ``monitor/hmp.c``, ``hmp-commands.hx``, ``hmp-commands-info.hx`` and the files that hold the
commands; lines end as on a terminal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import attrs

from sevplug.core.errors import SevplugError
from sevplug.plugins.qmp import commands
from sevplug.plugins.qmp.arguments import INTEGER, STRING, Argument
from sevplug.plugins.qmp.errors import QmpError
from sevplug.plugins.qmp.memory_commands import check_cpu_index
from sevplug.plugins.qmp.registry import Command
from sevplug.plugins.qmp.sev_commands import query_sev
from sevplug.plugins.qmp.version import version_info
from sevplug.sevapi.policy import PolicyBit

if TYPE_CHECKING:
    from sevplug.core.machine import Machine

_NONE: Mapping[str, Any] = {}


@attrs.frozen
class _Line:
    """A command for people: its name (``info`` and an item are one name), its help, and the text it prints."""

    name: str
    help: str
    run: Callable[[Machine], str | None]
    short: str = ""


def _info_sev(machine: Machine) -> str:
    info = query_sev(machine, _NONE)
    if not info["enabled"]:
        return "SEV is not enabled\n"
    denied = {bit: "off" if info["policy"] & bit else "on" for bit in (PolicyBit.NODBG, PolicyBit.NOKS)}
    return (
        f"SEV type: {info['sev-type']}\n"
        f"state: {info['state']}\n"
        f"build: {info['build-id']}\n"
        f"api version: {info['api-major']}.{info['api-minor']}\n"
        f"handle: {info['handle']}\n"
        f"debug: {denied[PolicyBit.NODBG]}\n"
        f"key-sharing: {denied[PolicyBit.NOKS]}\n"
    )


def _info_status(machine: Machine) -> str:
    info = commands.query_status(machine, _NONE)
    if info["running"]:
        return "VM status: running\n"
    state = "" if info["status"] == "paused" else f" ({info['status']})"
    return f"VM status: paused{state}\n"


def _info_version(_machine: Machine) -> str:
    info = version_info()
    version = info["qemu"]
    return f"{version['major']}.{version['minor']}.{version['micro']}{info['package']}\n"


def _help(_machine: Machine) -> str:
    return "".join(f"{line.name}  -- {line.help}\n" for line in _LINES)


def _info(_machine: Machine) -> str:
    return "".join(f"{line.name}  -- {line.help}\n" for line in _LINES if line.name.startswith("info "))


_LINES = (
    _Line("cont", "resume emulation", lambda machine: commands.cont(machine, _NONE), "c"),
    _Line("help", "show the help", _help, "?"),
    _Line("info", "show various information about the system state", _info),
    _Line("info sev", "show SEV information", _info_sev),
    _Line("info status", "show the current VM status (running|paused)", _info_status),
    _Line("info version", "show the version of QEMU", _info_version),
    _Line("quit", "quit the emulator", lambda machine: commands.quit_machine(machine, _NONE), "q"),
    _Line("stop", "stop emulation", lambda machine: commands.stop(machine, _NONE), "s"),
    _Line("system_reset", "reset the system", lambda machine: commands.system_reset(machine, _NONE)),
)
_BY_NAME = {name: line for line in _LINES for name in (line.name, line.short) if name}


def run_line(machine: Machine, text: str) -> str:
    """What the monitor prints for the command line ``text``; a command that fails says so."""
    words = text.split()
    if not words:
        return ""
    # "info" takes an item of its own, and may stand alone.
    length = min(len(words), 2 if words[0] == "info" else 1)
    name = " ".join(words[:length])
    line = _BY_NAME.get(name)
    if line is None:
        return f"unknown command: '{name}'\n"
    if len(words) > length:
        return f"{name}: extraneous characters at the end of line\n"
    try:
        return line.run(machine) or ""
    except (QmpError, SevplugError) as error:
        return f"Error: {error}\n"


def _human_monitor_command(machine: Machine, arguments: Mapping[str, Any]) -> str:
    check_cpu_index(machine, arguments)
    return run_line(machine, arguments["command-line"]).replace("\n", "\r\n")


COMMANDS = (
    Command(
        "human-monitor-command",
        _human_monitor_command,
        (Argument("command-line", STRING), Argument("cpu-index", INTEGER, optional=True)),
    ),
)
