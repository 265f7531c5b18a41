"""A line of the JSON log: the plug-in ``logging`` makes them of events, the command line of what it complains of."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any


def json_line(level: str, event: str, fields: Mapping[str, Any]) -> str:
    """``fields``, JSON values, as an object without a line feed, and beside them event, level and the time (UTC)."""
    timestamp = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    return json.dumps({**fields, "event": event, "level": level, "timestamp": timestamp})
