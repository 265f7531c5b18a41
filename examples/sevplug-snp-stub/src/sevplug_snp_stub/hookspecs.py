"""The hook that this plug-in publishes for others; mark an implementation ``@hookimpl(optionalhook=True)``."""

from __future__ import annotations

import pluggy

from sevplug import Machine

hookspec = pluggy.HookspecMarker("sevplug")


@hookspec
def snp_page(machine: Machine, gpa: int, page_type: int, digest: bytes) -> None:
    """All, cold: the page at ``gpa`` has entered the launch digest, which is ``digest`` (48 bytes) with it.

    For whoever has two digests that differ, and looks for the page that makes the difference.
    """
