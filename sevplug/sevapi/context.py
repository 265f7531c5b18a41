"""What one SEV launch is about: the facts that measuring, sealing and querying share."""

from __future__ import annotations

import attrs

from sevplug.sevapi.keys import TransportKeys
from sevplug.sevapi.policy import Policy
from sevplug.sevapi.version import ApiVersion


@attrs.frozen
class SevContext:
    """The context of a guest from LAUNCH_START on.

    `handle` is the firmware's number of the guest (u32); `keys` never show in a repr.
    """

    policy: Policy
    api: ApiVersion
    handle: int
    keys: TransportKeys = attrs.field(repr=False)
    c_bit: int = 51
