"""A machine at one moment: its whole state as a value, in memory or in a file.

`Machine.snapshot` makes one, `Machine.restore` goes back to it, in any machine that was built from the same
configuration.  docs/explanation/design.md, "Snapshots", has the rules.  Who makes no snapshot imports nothing of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sevplug.core.snapshot.saved_state import SavedState
    from sevplug.core.snapshot.sealing import read_snapshot_key
    from sevplug.core.snapshot.snapshot import Snapshot, needs_key

__all__ = ["SavedState", "Snapshot", "needs_key", "read_snapshot_key"]

_HOMES = {
    "SavedState": "sevplug.core.snapshot.saved_state",
    "Snapshot": "sevplug.core.snapshot.snapshot",
    "needs_key": "sevplug.core.snapshot.snapshot",
    "read_snapshot_key": "sevplug.core.snapshot.sealing",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        import importlib

        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'sevplug.core.snapshot' has no attribute {name!r}")
