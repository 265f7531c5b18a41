"""The commands about the machine as a whole.

Forms and texts are those of QEMU's ``qapi/run-state.json``, ``qapi/control.json``, ``qapi/machine.json`` and
``qapi/accelerator.json``.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sevplug.plugins.qmp.registry import Command
from sevplug.plugins.qmp.version import version_info

if TYPE_CHECKING:
    from sevplug.core.machine import Machine

Arguments = Mapping[str, Any]


def query_status(machine: Machine, _arguments: Arguments) -> dict[str, Any]:
    """The run state; the machine's words for it are QEMU's."""
    return {"running": machine.status == "running", "status": machine.status}


def cont(machine: Machine, _arguments: Arguments) -> None:
    """Let the guest run."""
    machine.resume()


def stop(machine: Machine, _arguments: Arguments) -> None:
    """Stop the guest between two instructions."""
    machine.pause()


def quit_machine(machine: Machine, _arguments: Arguments) -> None:
    """End the machine."""
    machine.quit()


def system_reset(machine: Machine, _arguments: Arguments) -> None:
    """Reset the guest, whatever it does."""
    machine.system_reset()


def _query_version(_machine: Machine, _arguments: Arguments) -> dict[str, Any]:
    return version_info()


def _query_name(machine: Machine, _arguments: Arguments) -> dict[str, Any]:
    name = machine.config.options.get("name")
    return {"name": name} if name else {}


def _query_kvm(_machine: Machine, _arguments: Arguments) -> dict[str, bool]:
    return {"enabled": False, "present": False}


def _query_cpus_fast(machine: Machine, _arguments: Arguments) -> list[dict[str, Any]]:
    index = machine.cpu.index
    return [
        {
            "cpu-index": index,
            "qom-path": f"/machine/unattached/device[{index}]",
            # Handlers run on the thread that runs the guest.
            "thread-id": threading.get_native_id(),
            "props": {"socket-id": index, "core-id": 0, "thread-id": 0},
            "target": "x86_64",
        }
    ]


COMMANDS = (
    Command("query-version", _query_version, on_machine=False),
    Command("query-name", _query_name, on_machine=False),
    Command("query-kvm", _query_kvm, on_machine=False),
    Command("query-status", query_status),
    Command("query-cpus-fast", _query_cpus_fast),
    Command("cont", cont),
    Command("stop", stop),
    Command("quit", quit_machine),
    Command("system_reset", system_reset),
)
