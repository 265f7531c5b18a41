"""The stable names of what a machine tells the world while it lives (hook ``notify``).

One word a moment; the fields of each are given beside it.  Console, JSON log, QMP events and reports are all made
from these, so a name here is public and does not change.  Plug-ins may add names of their own (``qmp.listening``).
"""

MACHINE_BUILT = "machine.built"  # memory (bytes), cpu (model), plugins (names)
LAUNCH_START = "launch.start"  # launch.description's fields
LAUNCH_UPDATE = "launch.update"  # name, gpa, size, page_type
LAUNCH_MEASURE = "launch.measure"  # digest (hex), measurement (base64)
LAUNCH_SECRET = "launch.secret"  # gpa, size
LAUNCH_FINISH = "launch.finish"  # state
OWNER_VERIFIED = "owner.verified"  # digest (hex)
RUN_RESUME = "run.resume"
RUN_STOP = "run.stop"
GUEST_RESET = "guest.reset"  # guest (bool: asked for by the guest), reason (QEMU's ShutdownCause)
GUEST_SHUTDOWN = "guest.shutdown"  # guest, reason
SNAPSHOT_SAVE = "snapshot.save"  # memory (bytes)
SNAPSHOT_RESTORE = "snapshot.restore"  # memory (bytes)
RUN_END = "run.end"  # result, detail, seconds
RUN_RAM = "run.ram"  # size (bytes), sha256 (hex)
WARNING = "warning"  # text
