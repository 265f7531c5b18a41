"""What a plug-in hands over for a snapshot."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs


@attrs.frozen
class SavedState:
    """The answer to the hook ``snapshot_save``.

    ``data``: the plug-in's state, plain data (`sevplug.core.snapshot.fields`).  ``secret``: it holds what must be in no
    file without a key.  ``options``: those of the plug-in's options (`MachineConfig.options`) that decide what the
    guest is, as plain data, so that the machine can be built again from the snapshot alone.
    """

    data: Mapping[str, Any] = attrs.field(factory=dict, repr=False)
    secret: bool = False
    options: Mapping[str, Any] = attrs.field(factory=dict)
