"""A machine at one moment: its whole state as a value, in memory or in a file.

`Machine.snapshot` makes one, `Machine.restore` goes back to it, in any machine that was built from the same
configuration.  docs/explanation/design.md, "Snapshots", has the rules.  Who makes no snapshot imports nothing of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sevplug import lazy_names

if TYPE_CHECKING:
    from sevplug.core.snapshot.saved_state import SavedState
    from sevplug.core.snapshot.sealing import read_snapshot_key
    from sevplug.core.snapshot.snapshot import Snapshot, needs_key

__all__ = ["SavedState", "Snapshot", "needs_key", "read_snapshot_key"]

__getattr__ = lazy_names(
    __name__,
    {
        "SavedState": "sevplug.core.snapshot.saved_state",
        "Snapshot": "sevplug.core.snapshot.snapshot",
        "needs_key": "sevplug.core.snapshot.snapshot",
        "read_snapshot_key": "sevplug.core.snapshot.sealing",
    },
)
