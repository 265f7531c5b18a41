"""A machine at one moment: its whole state as a value, in memory or in a file.

`Machine.snapshot` makes one, `Machine.restore` goes back to it, in any machine that was built from the same
configuration.  docs/design.md, "Snapshots", has the rules.
"""

from sevplug.core.snapshot.saved_state import SavedState
from sevplug.core.snapshot.sealing import read_snapshot_key
from sevplug.core.snapshot.snapshot import Snapshot, needs_key

__all__ = ["SavedState", "Snapshot", "needs_key", "read_snapshot_key"]
