"""An extension, which QEMU has not: the guest as it is now, in a file.

The key comes from ``--snapshot-key`` and never over the socket.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sevplug.core.snapshot import read_snapshot_key
from sevplug.plugins.qmp.arguments import STRING, Argument
from sevplug.plugins.qmp.registry import Command

if TYPE_CHECKING:
    from sevplug.core.machine import Machine

OPTION = "snapshot_key"


def key_of(machine: Machine) -> bytes | None:
    """The key that the option names, or None; `SnapshotError` when its file cannot be read."""
    path = machine.config.options.get(OPTION)
    return None if path is None else read_snapshot_key(str(path))


def _snapshot_save(machine: Machine, arguments: Mapping[str, Any]) -> None:
    machine.snapshot().save(arguments["path"], key_of(machine))


COMMANDS = (Command("sevplug-snapshot-save", _snapshot_save, (Argument("path", STRING),)),)
