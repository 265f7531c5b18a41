"""The only place that knows the CPU engine (unicorn): run loop, CPU state, exception and interrupt delivery."""

from sevplug.core.engine.debug import DebugUnit
from sevplug.core.engine.engine import Engine

__all__ = ["DebugUnit", "Engine"]
