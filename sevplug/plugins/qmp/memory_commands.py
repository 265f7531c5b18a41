"""The commands that write guest memory to files.

They see what the world outside the CPU sees: `GuestMemory.read`.  Forms and texts: QEMU's ``qapi/machine.json``,
``qapi/dump.json``, ``system/cpus.c`` and ``dump/dump.c``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from sevplug.core.memory import HIGH_RAM_BASE, PAGE_SIZE, RangeKind
from sevplug.plugins.qmp.arguments import BOOLEAN, ENUM, INTEGER, STRING, Argument
from sevplug.plugins.qmp.core_dump import core_header
from sevplug.plugins.qmp.errors import QmpError
from sevplug.plugins.qmp.registry import Command
from sevplug.plugins.qmp.whole_file import whole_file

if TYPE_CHECKING:
    from sevplug.core.machine import Machine

Arguments = Mapping[str, Any]

_STEP = 1 << 20
_ADDRESS_LIMIT = 1 << 64
_FORMATS = (
    *("elf", "kdump-zlib", "kdump-lzo", "kdump-snappy"),
    *("kdump-raw-zlib", "kdump-raw-lzo", "kdump-raw-snappy", "win-dmp"),
)


def _memsave(machine: Machine, arguments: Arguments) -> None:
    """Memory at linear addresses, through the page tables the CPU uses now."""
    check_cpu_index(machine, arguments)
    start, size = arguments["val"] % _ADDRESS_LIMIT, arguments["size"]
    refused = QmpError(f"Invalid addr 0x{start:016x}/size {size} specified")
    if size < 0:
        raise refused
    with whole_file(arguments["filename"], _failure(arguments["filename"])) as file:
        while size:
            step = min(size, PAGE_SIZE - start % PAGE_SIZE)
            gpa = machine.engine.translate_debug(start)
            if gpa is None:
                raise refused
            file.write(machine.memory.read(gpa, step, dma=False))
            start = (start + step) % _ADDRESS_LIMIT
            size -= step


def _pmemsave(machine: Machine, arguments: Arguments) -> None:
    """Memory at guest-physical addresses.

    QEMU would go on writing for a size beyond the end of memory; here the range must end there, or below 4 GiB.
    """
    start, size = arguments["val"], arguments["size"]
    end = max([HIGH_RAM_BASE, *(entry.end for entry in machine.memory.ranges)])
    if start < 0 or size < 0 or start + size > end:
        raise QmpError(f"Invalid addr 0x{start % _ADDRESS_LIMIT:016x}/size {size} specified")
    with whole_file(arguments["filename"], _failure(arguments["filename"])) as file:
        for piece in _read(machine, start, size):
            file.write(piece)


def _dump_guest_memory(machine: Machine, arguments: Arguments) -> None:
    """All RAM, or the part of it in [begin, begin + length), as an ELF core file."""
    form = arguments.get("format", "elf")
    begin, length = arguments.get("begin"), arguments.get("length")
    if form != "elf" and (arguments["paging"] or begin is not None or length is not None):
        raise QmpError("kdump-compressed format doesn't support paging or filter")
    if begin is not None and length is None:
        raise QmpError("Parameter 'length' is missing")
    if begin is None and length is not None:
        raise QmpError("Parameter 'begin' is missing")
    if form != "elf":
        raise QmpError(f"{form} is not available now")
    protocol, colon, path = arguments["protocol"].partition(":")
    if not colon or protocol not in ("file", "fd"):
        raise QmpError("parameter 'protocol' must start with 'file:' or 'fd:'")
    if protocol == "fd":
        raise QmpError(f"File descriptor named '{path}' has not been found")
    if arguments["paging"]:
        raise QmpError("Parameter 'paging' expects false: only guest-physical addresses can be dumped")
    if arguments.get("detach"):
        raise QmpError("Parameter 'detach' expects false: there are no dumps in the background")
    ranges = _ram(machine, begin, length)
    with whole_file(path, "dump: failed to save memory") as file:
        file.write(core_header(machine.cpu, ranges))
        for gpa, size in ranges:
            for piece in _read(machine, gpa, size):
                file.write(piece)


def _ram(machine: Machine, begin: int | None, length: int | None) -> list[tuple[int, int]]:
    """(guest-physical address, size) of each piece of RAM within the filter."""
    first, last = 0, _ADDRESS_LIMIT
    if begin is not None and length is not None:
        if length <= 0:
            raise QmpError("Parameter 'length' expects a non-zero size")
        first, last = begin, begin + length
    clipped = [
        (max(entry.gpa, first), min(entry.end, last))
        for entry in sorted(machine.memory.ranges, key=lambda entry: entry.gpa)
        if entry.kind is RangeKind.RAM
    ]
    ranges = [(start, end - start) for start, end in clipped if start < end]
    if not ranges:
        raise QmpError("dump: no guest memory to dump")
    return ranges


def _read(machine: Machine, start: int, size: int) -> Iterator[bytes]:
    """Guest-physical memory in pieces that fit a host's memory."""
    for gpa in range(start, start + size, _STEP):
        yield machine.memory.read(gpa, min(_STEP, start + size - gpa), dma=False)


def check_cpu_index(machine: Machine, arguments: Arguments) -> None:
    """`QmpError` when ``cpu-index`` is there and names no CPU."""
    if arguments.get("cpu-index", machine.cpu.index) != machine.cpu.index:
        raise QmpError("Parameter 'cpu-index' expects a CPU number")


def _failure(path: str) -> str:
    return f"writing memory to '{path}' failed"


_WHERE = (Argument("val", INTEGER), Argument("size", INTEGER), Argument("filename", STRING))

COMMANDS = (
    Command("memsave", _memsave, (*_WHERE, Argument("cpu-index", INTEGER, optional=True))),
    Command("pmemsave", _pmemsave, _WHERE),
    Command(
        "dump-guest-memory",
        _dump_guest_memory,
        (
            Argument("paging", BOOLEAN),
            Argument("protocol", STRING),
            Argument("detach", BOOLEAN, optional=True),
            Argument("begin", INTEGER, optional=True),
            Argument("length", INTEGER, optional=True),
            Argument("format", ENUM, optional=True, choices=_FORMATS),
        ),
    ),
)
