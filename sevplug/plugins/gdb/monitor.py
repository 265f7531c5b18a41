"""GDB's ``monitor``: QEMU's commands for people, and where an address of the guest leads to."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sevplug.core.machine import Machine

# What people type -> what QEMU's monitor calls it.
_SHORT = {"sev": "info sev", "status": "info status", "": "help"}
_HELP = "page ADDRESS  -- where a linear address leads to, and through which view\nsev  -- the same as info sev\n"


def monitor(machine: Machine, line: str) -> str:
    """The text that the command ``line`` prints; it ends with a newline, if it is not empty."""
    from sevplug.plugins.qmp.human import run_line

    words = line.split()
    if words[:1] == ["page"]:
        return _page(machine, words[1:])
    name = " ".join(words)
    text = run_line(machine, _SHORT.get(name, name))
    return text + _HELP if _SHORT.get(name, name) == "help" else text


def _page(machine: Machine, arguments: list[str]) -> str:
    try:
        (text,) = arguments
        linear = int(text, 0)
    except ValueError:
        return "page: expected one address, such as 0x100000\n"
    found = machine.engine.look(linear) if 0 <= linear < 1 << 64 else None
    if found is None:
        return f"{text}: not mapped\n"
    gpa, view = found[0], "private" if found[1] else "shared"
    entry = machine.memory.find(gpa)
    return f"linear {linear:#x} is guest-physical {gpa:#x}, {view}, {'no memory' if entry is None else entry.name}\n"
