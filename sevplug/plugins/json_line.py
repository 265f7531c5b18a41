"""A line of the JSON log: the plug-in ``logging`` makes them of events, the command line of what it complains of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def json_line(level: str, event: str, fields: Mapping[str, Any]) -> str:
    """``fields``, JSON values, as an object without a line feed, and beside them event, level and the time (UTC)."""
    # Here, because it brings rich and asyncio, and most runs have no such log.
    from structlog.processors import JSONRenderer, TimeStamper, add_log_level

    line: Any = {**fields, "event": event}
    for processor in (add_log_level, TimeStamper(fmt="iso", utc=True, key="timestamp"), JSONRenderer()):
        line = processor(None, level, line)
    return str(line)
