"""sevplug emulates AMD SEV from the guest's side, for functional tests.

It gives no security: nothing here protects a guest from its host.  The names below are the public API; they are
imported when they are first used, so that ``sevplug --help`` need not wait for the engine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sevplug.core.config import MachineConfig
    from sevplug.core.hookspecs import hookimpl
    from sevplug.core.machine import Machine

__all__ = ["Machine", "MachineConfig", "__version__", "hookimpl"]
__version__ = "0.1.0"


def lazy_names(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """The ``__getattr__`` of a package whose names are imported when they are first used.

    ``homes``: where each name is defined, a module by its full name.
    """

    def find(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        import importlib

        return getattr(importlib.import_module(homes[name]), name)

    return find


__getattr__ = lazy_names(
    __name__,
    {
        "Machine": "sevplug.core.machine",
        "MachineConfig": "sevplug.core.config",
        "hookimpl": "sevplug.core.hookspecs",
    },
)
