"""sevplug emulates AMD SEV from the guest's side, for functional tests.

It gives no security: nothing here protects a guest from its host.  The names below are the public API; they are
imported when they are first used, so that ``sevplug --help`` need not wait for the engine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sevplug.core.config import MachineConfig
    from sevplug.core.hookspecs import hookimpl
    from sevplug.core.machine import Machine

__all__ = ["Machine", "MachineConfig", "__version__", "hookimpl"]
__version__ = "0.1.0"

_HOMES = {
    "Machine": "sevplug.core.machine",
    "MachineConfig": "sevplug.core.config",
    "hookimpl": "sevplug.core.hookspecs",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        import importlib

        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'sevplug' has no attribute {name!r}")
