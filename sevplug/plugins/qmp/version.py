"""The version the server reports."""

from __future__ import annotations

from typing import Any

from sevplug import __version__

# The QEMU whose commands, errors and events are followed; clients choose what they may ask for by it.
_COMPATIBLE = (11, 1, 0)


def version_info() -> dict[str, Any]:
    """The return value of ``query-version`` (QEMU's ``VersionInfo``, ``qapi/control.json``)."""
    major, minor, micro = _COMPATIBLE
    return {"qemu": {"major": major, "minor": minor, "micro": micro}, "package": f"sevplug {__version__}"}
