"""Extensions, which QEMU has not: guest memory through the private view, and which page has which form.

``sevplug-debug-read`` and ``-write`` are the firmware's DBG_DECRYPT and DBG_ENCRYPT (SEV API, chapter 7): only a guest
whose policy has not the bit NODBG can be debugged.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import attrs

from sevplug.plugins.qmp.arguments import INTEGER, STRING, UINT64, Argument
from sevplug.plugins.qmp.errors import QmpError
from sevplug.plugins.qmp.registry import Command
from sevplug.plugins.qmp.sev_commands import firmware_error, launch_of
from sevplug.sevapi.encodings import decode_base64
from sevplug.sevapi.policy import PolicyBit
from sevplug.sevapi.status import Status

if TYPE_CHECKING:
    from sevplug.core.machine import Machine

_MOST = 1 << 20
_FORM = "{}: ret={{}} fw_error={{}} '{{}}'"


def _check(machine: Machine, command: str, gpa: int, size: int) -> None:
    """`QmpError` unless the guest may be debugged, and has memory there."""
    launch = launch_of(machine)
    if launch is None:
        raise QmpError("SEV is not enabled")
    if PolicyBit.NODBG in launch.policy:
        raise firmware_error(_FORM.format(command), Status.POLICY_FAILURE)
    if not 0 < size <= _MOST:
        raise firmware_error(_FORM.format(command), Status.INVALID_LENGTH)
    if not machine.memory.holds(gpa, size):
        raise firmware_error(_FORM.format(command), Status.INVALID_ADDRESS)


def _debug_read(machine: Machine, arguments: Mapping[str, Any]) -> dict[str, str]:
    gpa, size = arguments["gpa"], arguments["size"]
    _check(machine, "DBG_DECRYPT", gpa, size)
    return {"data": base64.b64encode(machine.memory.read(gpa, size, private=True)).decode()}


def _debug_write(machine: Machine, arguments: Mapping[str, Any]) -> None:
    data = decode_base64(arguments["data"])
    if data is None:
        raise QmpError("Parameter 'data' expects base64")
    _check(machine, "DBG_ENCRYPT", arguments["gpa"], len(data))
    machine.memory.write(arguments["gpa"], data, private=True)


def _query_memory(machine: Machine, _arguments: Mapping[str, Any]) -> dict[str, Any]:
    counts = machine.memory.page_counts()
    if counts is None:
        raise QmpError("memory is not encrypted")
    return {**attrs.asdict(counts), "map": [attrs.asdict(run) for run in machine.memory.page_map()]}


COMMANDS = (
    Command("sevplug-debug-read", _debug_read, (Argument("gpa", UINT64), Argument("size", INTEGER))),
    Command("sevplug-debug-write", _debug_write, (Argument("gpa", UINT64), Argument("data", STRING))),
    Command("sevplug-query-memory", _query_memory),
)
