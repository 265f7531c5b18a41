"""The plug-in ``c-bit-checker``: tells a guest's author where a C-bit is wrong, before hardware does.

It hears of pages that were accessed through another view than before (hook ``page_event``) and reports what no guest
does on purpose: reading through one view what was written through the other, fetching instructions from a shared page,
a device that is handed private memory, one page mapped both ways, a reserved bit where a C-bit was meant.  Storing
through the other view is how pages are converted, and no error.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from sevplug.core.cpumodel import PHYSICAL_BITS
from sevplug.core.errors import ConfigError
from sevplug.core.hookspecs import hookimpl
from sevplug.core.result import STOPPED
from sevplug.core.snapshot import SavedState
from sevplug.core.vcpu import VCpu
from sevplug.core.views import PageEvent

if TYPE_CHECKING:
    import click

    from sevplug.core.machine import Machine
    from sevplug.plugins.symbols import Symbols

OFF, WARN, STOP = "off", "warn", "stop"
MODES: Final = (OFF, WARN, STOP)
# A guest that is wrong is so a million times; the summary says how many findings were left out.
_MOST = 20
_ADDRESS = 0x000F_FFFF_FFFF_F000
_PRESENT, _LARGE = 1, 1 << 7


class CBitCheckerPlugin:
    """The findings of one guest."""

    def __init__(self) -> None:
        self._mode = WARN
        self._symbols: Symbols | None = None
        self._seen: set[tuple[str, int, int]] = set()
        self.findings: list[str] = []
        self._left_out = 0

    @hookimpl
    def add_options(self, command: click.Command) -> None:
        """``--c-bit-checker`` and ``--symbols``."""
        import click  # only for those who come from the command line

        command.params += [
            click.Option(
                ["--c-bit-checker"],
                type=click.Choice(MODES),
                default=WARN,
                show_default=True,
                help="What to do where the guest uses memory through the wrong view.",
            ),
            click.Option(
                ["--symbols"], metavar="FILE", help="Names for the guest's addresses: System.map, or what nm prints."
            ),
        ]

    @hookimpl
    def machine_init(self, machine: Machine) -> None:
        """Take the options."""
        options = machine.config.options
        mode = options.get("c_bit_checker") or WARN
        if mode not in MODES:
            raise ConfigError(f"c_bit_checker {mode!r}: expected {', '.join(MODES)}")
        self._mode = str(mode)
        self._machine = machine
        symbols = options.get("symbols")
        if symbols is not None:
            from sevplug.plugins.symbols import read_symbols  # only for those who have a file of them

            self._symbols = read_symbols(str(symbols))

    @hookimpl
    def page_event(self, cpu: VCpu, event: PageEvent) -> None:
        """Say what is wrong with an access, if something is."""
        if self._mode == OFF:
            return
        for kind, text in self._judge(event):
            self._report(cpu, kind, event, text)

    @hookimpl
    def summary(self, document: dict[str, Any]) -> None:
        """Key ``c_bit_checker``."""
        if self._mode != OFF:
            document["c_bit_checker"] = {"findings": list(self.findings), "left_out": self._left_out}

    @hookimpl
    def snapshot_save(self) -> SavedState:
        """The findings so far."""
        seen = [list(key) for key in sorted(self._seen)]
        return SavedState({"findings": list(self.findings), "left_out": self._left_out, "seen": seen})

    @hookimpl
    def snapshot_load(self, state: Mapping[str, Any]) -> None:
        """Nothing was found since."""
        self._seen = {(str(kind), int(gpa), int(rip)) for kind, gpa, rip in state["seen"]}
        self.findings, self._left_out = [str(line) for line in state["findings"]], int(state["left_out"])

    # -- what is wrong -----------------------------------------------------------------------------------------------

    def _judge(self, event: PageEvent) -> list[tuple[str, str]]:
        if event.kind == "reserved":
            return self._reserved(event.linear or 0)
        entry = self._machine.memory.find(event.gpa)
        if entry is None or entry not in self._machine.memory.ram:
            # Firmware finds out whether its flash takes commands by reading, unencrypted, what it stored there.
            return []
        found = []
        writer = "a device" if event.by_device else "the CPU"
        view, other = ("private", "shared") if event.private else ("shared", "private")
        written = f"{writer} wrote it last as {'private' if event.written_private else 'shared'} memory"
        if event.written_private is None:
            written = "nobody has written it"
        if event.kind == "table":
            text = (
                f"page {event.gpa:#x} is read as a page table, and {written}: hardware takes what its bytes decipher to"
            )
            found.append(("table", text))
        elif event.kind == "dma-read":
            text = f"a device reads page {event.gpa:#x}, and {written}: hardware hands it ciphertext"
            found.append(("dma-read", text))
        elif event.kind == "fetch" and (event.unlike_data or event.written_private is False):
            through = " through a mapping without the C-bit" if event.unlike_data else ""
            effect = "runs what its bytes decipher to" if event.written_private is False else "runs it deciphered"
            text = f"instructions are fetched from page {event.gpa:#x}{through}, and {written}: hardware {effect}"
            found.append(("fetch", text))
        elif event.kind == "read" and event.private is not event.written_private is not None:
            effect = "reads what its bytes decipher to" if event.private else "reads ciphertext"
            found.append(("read", f"page {event.gpa:#x} is read as {view} memory, and {written}: hardware {effect}"))
        if event.before is not None and event.before != event.linear and self._maps(event.before, event):
            places = f"as {view} memory at {event.linear:#x} and as {other} at {event.before:#x}"
            text = f"page {event.gpa:#x} is mapped {places}"
            found.append(("both", f"{text}: on hardware caches may hold both, and one store is lost"))
        return found

    def _maps(self, linear: int, event: PageEvent) -> bool:
        """Whether ``linear`` leads to the event's page still, through the other view."""
        return self._machine.engine.look(linear) == (event.gpa, not event.private)

    def _reserved(self, linear: int) -> list[tuple[str, str]]:
        """The entry on the way to ``linear`` that has a bit set above the address width, where it is not the C-bit."""
        machine, cpu = self._machine, self._machine.cpu
        mask = machine.plugins.hook.address_rule(cpu=cpu) or 0
        table = cpu.get("cr3") & _ADDRESS & ~mask
        for shift in (39, 30, 21, 12) if cpu.get("efer") & 1 << 10 else ():
            where = table + 8 * (linear >> shift & 0x1FF)
            entry = int.from_bytes(machine.memory.read(where, 8, private=True), "little")
            wrong = entry & _ADDRESS & ~mask & -(1 << PHYSICAL_BITS)
            if wrong and entry & _PRESENT:
                bits = " and ".join(str(bit) for bit in range(PHYSICAL_BITS, 52) if wrong >> bit & 1)
                c_bit = f"the C-bit is bit {mask.bit_length() - 1}" if mask else "there is no C-bit"
                text = f"the entry at {where:#x} for {linear:#x} has address bit {bits} set, and {c_bit}"
                return [("reserved", f"{text}: hardware takes a page fault for a reserved bit")]
            if not entry & _PRESENT or entry & _LARGE:
                break
            table = entry & _ADDRESS & ~mask
        return []

    def _report(self, cpu: VCpu, kind: str, event: PageEvent, text: str) -> None:
        rip = cpu.rip
        key = (kind, event.gpa or event.linear or 0, rip)
        if key in self._seen:
            return
        self._seen.add(key)
        if len(self.findings) >= _MOST:
            self._left_out += 1
            return
        name = "" if self._symbols is None else self._symbols.describe(rip)
        line = f"C-bit: at rip {rip:#x}{f' ({name})' if name else ''}: {text}"
        self.findings.append(line)
        self._machine.warn(line)
        if self._mode == STOP:
            self._machine.end(STOPPED, line)
