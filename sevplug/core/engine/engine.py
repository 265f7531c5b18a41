"""The run loop around the CPU engine: one guest CPU, its callbacks, and how it is stopped.

The engine is never stopped from another thread: that would run read-modify-write instructions twice.  A kick asks
for the engine's own SMI, which it takes between two instructions and which is intercepted, so the callback runs at a
clean place.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from ctypes import c_int, c_uint64, c_void_p
from typing import TYPE_CHECKING, Any

import attrs

from sevplug.core import result
from sevplug.core.binding import bind_first
from sevplug.core.engine import internals as at
from sevplug.core.engine import library
from sevplug.core.engine.callbacks import Callbacks
from sevplug.core.engine.debug import DebugUnit
from sevplug.core.engine.delivery import Delivery
from sevplug.core.engine.fills import RESTART, Fills
from sevplug.core.engine.guard import Guard
from sevplug.core.engine.intercepts import Intercepts
from sevplug.core.engine.linear import PAGE_FAULT, LinearMemory
from sevplug.core.engine.mapping import AddressSpace
from sevplug.core.engine.portio import PortIo
from sevplug.core.engine.reset import reset_registers
from sevplug.core.engine.saved import load_registers, save_registers
from sevplug.core.engine.vcpu import FLAG_IF, REGISTERS, EngineCpu
from sevplug.core.engine.watch import Watch
from sevplug.core.errors import EngineError, SnapshotError
from sevplug.core.paging import PF_RSVD

if TYPE_CHECKING:
    from sevplug.core.machine import Machine


class Engine:
    """One CPU over one machine's memory and bus."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._clock = machine.clock
        self._lib = library.load()
        self._handle = c_void_p()
        self._deferred: list[Callable[[], None]] = []
        self._leaving = False
        self._halted = False
        # The engine's loop is on the stack: the guest may be in the middle of an instruction.
        self.inside = False
        library.check(
            self._lib.uc_open(library.ARCH_X86, library.MODE_64, ctypes.byref(self._handle)), "the CPU engine"
        )
        library.control(self._handle, library.CTL_CPU_MODEL, library.CPU_EPYC)
        library.control(self._handle, library.CTL_BUFFER_SIZE, library.CODE_BUFFER)
        library.control(self._handle, library.CTL_TLB_TYPE, library.TLB_VIRTUAL)
        # With a list of exit addresses, an empty one, no address ends a run; "until" would reserve one, 0 among them.
        library.control(self._handle, library.CTL_USE_EXITS, 1)
        try:
            self._state = at.CpuState(self._handle)
        except EngineError:
            self._lib.uc_close(self._handle)
            raise
        assert self._handle.value is not None
        self._invalid_address = c_uint64.from_address(self._handle.value + at.UC_INVALID_ADDRESS)
        self.cpu = EngineCpu(self, self._state, self._handle)
        self._guard = guard = Guard(machine.clock, self._state, self.stop)
        self._mapping = AddressSpace(machine, self._handle, guard.run)
        self._fills = Fills(machine, self.cpu, guard.fail)
        self._linear = LinearMemory(self.cpu, self._fills, machine.memory)
        self.delivery = Delivery(self.cpu, self._linear, lambda text: machine.end(result.FAULT, text))
        self.intercepts = Intercepts(machine, self.cpu, self._linear, self._handle, self._fills.load_cr3)
        self.debug = DebugUnit(machine, self, self.cpu)
        self._watch = Watch(machine, self.kick)
        self.watching = self._watch.watching
        self._callbacks = Callbacks(
            machine,
            self,
            self._handle,
            guard=guard,
            fills=self._fills,
            delivery=self.delivery,
            intercepts=self.intercepts,
            ports=PortIo(machine, self.cpu, self._linear, guard.tick, guard.fail),
        )
        machine.memory.on_write = self._written

    # -- construction ----------------------------------------------------------------------------------------------

    def power_on(self) -> None:
        """The CPU is reset."""
        self.intercepts.reset()
        reset_registers(self.cpu)
        self._halted = False
        self.cpu.set("rdx", self.intercepts.cpuid(1, 0).eax)

    def bind_translation(self) -> None:
        """Resolve the `translate` hook: as a mask where the only plug-in gives one, else as a call."""
        manager = self._machine.plugins
        rule = manager.hook.address_rule(cpu=self.cpu) or 0
        bound = bind_first(manager, "translate")
        translate: Callable[[int, int], int] | None = None
        if bound is not None and not (rule and len(manager.hook.translate.get_hookimpls()) == 1):
            cpu, call = self.cpu, bound

            def translate(address: int, access: int) -> int:
                answer: int | None = call(cpu, address, access)
                return address if answer is None else answer

        self._fills.bind(0 if translate is not None else rule, translate, self.intercepts.physical_bits)
        self.cpu.flush_translations()

    # -- running ---------------------------------------------------------------------------------------------------

    def run(self) -> bool:
        """Run the guest until someone asks to leave.  True: the guest sleeps, and only the host can wake it."""
        self._leaving = False
        while not self._leaving:
            while self._deferred:
                self._deferred.pop(0)()
            if self._halted:
                if self._sleep():
                    return True
                if not self._halted:
                    self.debug.woken()
            elif self.debug.active:
                self.debug.enter()
            else:
                self.enter()
        return False

    def enter(self) -> None:
        """Let the guest run until the engine leaves, and do what is to be done then."""
        self.inside = True
        self._callbacks.enter()
        code = self._lib.uc_emu_start(self._handle, self.cpu.rip, 0, 0, 0)
        self.inside = False
        self._settle(code)

    def _settle(self, code: int) -> None:
        """What is left to do after the engine returned with ``code``."""
        self._guard.settle()
        fault, self._fills.fault = self._fills.fault, None
        self._callbacks.settle()
        if fault is not None:
            vector, error_code, page = fault
            if vector == RESTART:
                crossing, self._fills.crossing = self._fills.crossing, None
                (crossing or self.drop_code)()
                return
            if vector == PAGE_FAULT and error_code is not None and error_code & PF_RSVD:
                self._machine.reserved_bits(page)
            misread, self._fills.misread = self._fills.misread, None
            if misread is not None:
                self._machine.page_event(misread)
            self._machine.counters.faults += 1
            if vector == 14:
                # The callback sees page-aligned addresses only; the engine remembers the whole one.
                invalid = self._invalid_address.value
                self.cpu.set("cr2", invalid if invalid & ~0xFFF == page else page)
            self.delivery.exception(vector, error_code)
            self.debug.done = True
        elif self.debug.left:
            self.debug.settle()
        elif code:
            text = self._lib.uc_strerror(c_int(code)).decode()
            self._machine.end(result.FAULT, f"the CPU engine gave up at rip {self.cpu.rip:#x}: {text}")

    def _sleep(self) -> bool:
        """One step of a halted CPU: an interrupt, or the next timer.  True when neither can come by itself."""
        cpu = self.cpu
        if not cpu.get("rflags") & FLAG_IF:
            self._machine.end(result.HALTED, f"halted with interrupts off at rip {cpu.rip:#x}")
            return False
        if self.take_kick():
            self._leaving = True
            return False
        if cpu.interrupt_line:
            self.interrupt()
            return False
        if not self._clock.skip_to_next():
            return True
        self._clock.run_due()
        return False

    def interrupt(self) -> None:
        """INTR is high and the CPU takes it."""
        vector = self._machine.interrupt_source.acknowledge()
        if vector is None:
            self.cpu.set_interrupt_line(False)
            return
        # An interrupt that waited for IF comes right behind the STI and HLT that let it in.
        self._halted = False
        self._machine.counters.interrupts += 1
        self.delivery.interrupt(vector)

    def halt(self) -> None:
        """The guest executed HLT; for callbacks only."""
        self._halted = self._watch.rested = True
        self.stop()

    def stop(self) -> None:
        """End the engine's loop after the present instruction; for callbacks only."""
        self._lib.uc_emu_stop(self._handle)

    def leave(self) -> None:
        """Have `run` return soon; on the machine's thread."""
        self._leaving = True
        self.stop()

    def defer(self, action: Callable[[], None]) -> None:
        """Run ``action`` between two instructions, before the guest goes on."""
        self._deferred.append(action)
        self.stop()

    def kick(self) -> None:
        """Have `run` return soon; from any thread."""
        self._state.request(at.REQUEST_KICK_BYTE, at.REQUEST_KICK)

    def take_kick(self) -> bool:
        """Whether somebody kicked, who is content then."""
        kicked = self._state.cpu[at.CPU_INTERRUPT_REQUEST + at.REQUEST_KICK_BYTE] & at.REQUEST_KICK
        if not kicked:
            return False
        self._state.withdraw(at.REQUEST_KICK_BYTE)
        self._watch.kicked(bytes(self._state.q[:REGISTERS]))
        return True

    # -- for those outside -----------------------------------------------------------------------------------------

    def translate_debug(self, linear: int) -> int | None:
        """The guest-physical address behind a linear one with supervisor rights, or None where nothing is mapped."""
        found = self._linear.look(linear)
        return None if found is None else found[0]

    def look(self, linear: int) -> tuple[int, bool] | None:
        """The same, and whether data there is read through the private view."""
        return self._linear.look(linear)

    def peek(self, linear: int, size: int) -> bytes:
        """Up to ``size`` bytes at a linear address, as the guest's loads get them, without a trace in the guest.

        Fewer where the rest is not mapped, or is no memory.
        """
        return self._linear.peek(linear, size)

    def go_to(self, rip: int) -> None:
        """Have the CPU go on at ``rip``, which a halted one does not do for a new RIP alone."""
        self.cpu.set("rip", rip)
        self._halted = False

    def poke(self, linear: int, data: bytes) -> bool:
        """Store ``data`` at a linear address as the guest's stores would, but into ROM too and without a trace in its
        page tables.  False, and nothing is stored, where a part is not mapped or is no memory."""
        return self._linear.poke(linear, data)

    @property
    def page_walk(self) -> str:
        """Which of the two page walks serves the guest, ``compiled`` or ``python``."""
        return self._fills.walked_by

    def count(self) -> dict[str, int]:
        """The counters of the run so far."""
        self._machine.counters.fills = self._fills.count
        return attrs.asdict(self._machine.counters)

    def _written(self, gpa: int, size: int) -> None:
        """Memory changed behind the engine's back: forget translated code that came from there."""
        if self._fills.holds_code(gpa, size):
            self.defer(self.drop_code)

    def drop_code(self) -> None:
        """Forget all translated code; outside of the engine only."""
        library.control(self._handle, library.CTL_TB_FLUSH)
        self._fills.code_is_dropped()

    # -- snapshots -------------------------------------------------------------------------------------------------

    def rest(self) -> None:
        """Between two instructions: do what waits, and forget every translation and all translated code.

        What runs on from here does the same, whether it is this engine or one that loads its state: when an entry's
        accessed bit is set again depends on what is cached.  `SnapshotError` in the middle of an instruction.
        """
        if self.inside:
            raise SnapshotError("the guest is in the middle of an instruction, expected one that stands still")
        while self._deferred:
            self._deferred.pop(0)()
        self.drop_code()
        self.debug.rest()
        self.bind_translation()
        self._fills.rest()

    def save(self) -> dict[str, Any]:
        """The CPU and what is known of pages of code, as plain data; behind `rest`."""
        return {
            "registers": save_registers(self.cpu),
            "halted": self._halted,
            "interrupt_line": self.cpu.interrupt_line,
            "own": self.intercepts.save(),
            "pages": self._fills.save(),
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Put back what `save` gave, once memory is there; KeyError, TypeError or ValueError for anything else."""
        self._deferred.clear()
        self._guard.forget()
        self.debug.cancel_step()
        load_registers(self.cpu, state["registers"])
        self.intercepts.load(state["own"])
        self._halted = bool(state["halted"])
        self.cpu.set_interrupt_line(bool(state["interrupt_line"]))
        self._fills.load(state["pages"])
        self.rest()

    def close(self) -> None:
        """Free the engine."""
        if self._handle.value is not None:
            self._machine.memory.on_write = None
            self._lib.uc_close(self._handle)
            self._handle = c_void_p()
            self._fills.unbind()
