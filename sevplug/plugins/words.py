"""What an event says, in words for people."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from sevplug.core import events
from sevplug.core.result import RESULTS
from sevplug.plugins.phases import PHASE

# The last line of a log whose machine came to no end of its own.
ERROR: Final = "error"  # text


def tell(event: str, fields: Mapping[str, Any]) -> str:
    """``fields``, plain values, as a phrase; of events that are not known here, and unusual fields, the bare fields."""
    words = _WORDS.get(event)
    try:
        return _other(fields) if words is None else words(fields)
    except (KeyError, TypeError, ValueError):
        return _other(fields)


def printable(text: str) -> str:
    """``text`` without control characters, which could move a terminal's cursor over other lines."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)


def _other(fields: Mapping[str, Any]) -> str:
    return "  ".join(f"{name}={value}" for name, value in fields.items())


def size(count: int) -> str:
    """``count`` bytes in the largest unit that has no fraction."""
    for shift, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if count and count % (1 << shift) == 0:
            return f"{count >> shift} {unit}"
    return f"{count} bytes"


def api(fields: Mapping[str, Any]) -> str:
    """The API version of the platform's firmware."""
    return f"{fields['api_major']}.{fields['api_minor']} build {fields['build_id']}"


_WORDS: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    events.MACHINE_BUILT: lambda f: f"{size(f['memory'])}, {f['cpu']}, plug-ins {' '.join(f['plugins'])}",
    events.LAUNCH_START: lambda f: f"policy {f['policy']:#x}, API {api(f)}",
    events.LAUNCH_UPDATE: lambda f: f"measured {f['name']}: {size(f['size'])} at {f['gpa']:#x}",
    events.LAUNCH_MEASURE: lambda f: f"launch digest {f['digest']}",
    events.LAUNCH_SECRET: lambda f: f"secret injected: {f['size']} bytes at {f['gpa']:#x}",
    events.LAUNCH_FINISH: lambda f: f"state {f['state']}",
    events.OWNER_VERIFIED: lambda _f: "measurement verified: it is that of the owner's own images",
    events.RUN_RESUME: lambda _f: "the guest runs",
    events.RUN_STOP: lambda _f: "the guest is stopped",
    events.GUEST_RESET: lambda f: f"reset, asked for by the {'guest' if f['guest'] else 'host'} ({f['reason']})",
    events.GUEST_SHUTDOWN: lambda f: f"shutdown, asked for by the {'guest' if f['guest'] else 'host'} ({f['reason']})",
    events.SNAPSHOT_SAVE: lambda f: f"snapshot made: {size(f['memory'])} of memory that is not zero",
    events.SNAPSHOT_RESTORE: lambda f: f"back to a snapshot: {size(f['memory'])} of memory that is not zero",
    events.RUN_END: lambda f: f"{f['result']} after {f['seconds']:.3f} s: {f.get('detail') or RESULTS[f['result']]}",
    events.RUN_RAM: lambda f: f"SHA-256 of {size(f['size'])} of RAM: {f['sha256']}",
    events.WARNING: lambda f: str(f["text"]),
    PHASE: lambda f: str(f["text"]),
    ERROR: lambda f: str(f["text"]),
}
