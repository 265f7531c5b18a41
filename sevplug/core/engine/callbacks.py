"""What the CPU engine calls while the guest runs, for exceptions, exits, unknown opcodes and system calls."""

from __future__ import annotations

from collections.abc import Callable
from ctypes import c_void_p
from typing import TYPE_CHECKING

from sevplug.core import cpumodel, result
from sevplug.core.engine import compiled, library
from sevplug.core.engine import internals as at
from sevplug.core.engine.compiled.exits import CompiledExits
from sevplug.core.engine.delivery import DEBUG, Delivery
from sevplug.core.engine.fills import Fills
from sevplug.core.engine.guard import EVENT_NS, Guard
from sevplug.core.engine.intercepts import EXIT_HLT, EXIT_SHUTDOWN, EXIT_SMI, EXIT_VINTR, PAUSE_NS, Intercepts
from sevplug.core.engine.portio import PortIo
from sevplug.core.engine.syscall import LENGTH as SYSTEM_CALL_LENGTH
from sevplug.core.engine.syscall import enter_by_syscall, enter_by_sysenter
from sevplug.core.engine.vcpu import FLAG_TF, EngineCpu
from sevplug.core.errors import GuestFault

if TYPE_CHECKING:
    from sevplug.core.engine.engine import Engine
    from sevplug.core.machine import Machine

# Where kernels are, in long mode.
_UPPER_HALF, _HIGHEST = 0xFFFF_8000_0000_0000, 0xFFFF_FFFF_FFFF_FFFF


class Callbacks:
    """The callbacks of one engine, which calls them until it is closed."""

    def __init__(
        self,
        machine: Machine,
        engine: Engine,
        handle: c_void_p,
        *,
        guard: Guard,
        fills: Fills,
        delivery: Delivery,
        intercepts: Intercepts,
        ports: PortIo,
    ) -> None:
        self._machine, self._engine = machine, engine
        self._cpu: EngineCpu = engine.cpu
        self._state = engine.cpu.state
        self._guard, self._fills, self._delivery, self._intercepts = guard, fills, delivery, intercepts
        self._ports, self._debug = ports, engine.debug
        # The interrupt line is low although it should be high.
        self._line_held_back = False
        interrupt = library.INTR_CALLBACK(self._on_interrupt)
        self._exits = self._compiled_exits(interrupt)
        self._kept: list[object] = []
        for kind, callback, instruction in (
            (library.HOOK_TLB_FILL, fills.callback, None),
            (library.HOOK_INTR, (interrupt, c_void_p()) if self._exits is None else self._exits.callback, None),
            (library.HOOK_INSN_INVALID, library.INVALID_CALLBACK(self._on_invalid), None),
            (library.HOOK_INSN, library.IN_CALLBACK(ports.on_in), library.INS_IN),
            (library.HOOK_INSN, library.OUT_CALLBACK(ports.on_out), library.INS_OUT),
            (library.HOOK_INSN, library.INSN_CALLBACK(self._on_syscall), library.INS_SYSCALL),
            (library.HOOK_INSN, library.INSN_CALLBACK(self._on_sysenter), library.INS_SYSENTER),
        ):
            function, argument = callback if isinstance(callback, tuple) else (callback, c_void_p())
            self._kept.append(function)
            library.hook(handle, kind, function, instruction, argument)
        # Nothing ever calls this one.  Where there is one for a block's address, the engine does not look through its
        # whole translation cache behind each block that it translates, for stores to make slow (``tb_gen_code`` and
        # ``uc_mem_hook_installed``), which aliases.py does better.  Where there is one for a physical address, no store
        # becomes fast; so it is for linear addresses that none is as high as.
        nothing = library.MEMORY_CALLBACK(lambda *_access: False)
        self._kept.append(nothing)
        library.hook(handle, library.HOOK_FETCH_PROT, nothing, first=_UPPER_HALF, last=_HIGHEST)

    def _compiled_exits(self, interrupt: object) -> CompiledExits | None:
        """What answers the most frequent exits; None: Python does it all."""
        twin, fills, intercepts, clock = compiled.load(), self._fills.compiled, self._intercepts, self._machine.clock
        if twin is None or fills is None or intercepts.hooked or not clock.virtual:
            return None
        return CompiledExits(
            twin,
            fills,
            interrupt,
            times=clock.times,
            jitter=intercepts.jitter.state,
            tsc_offset=intercepts.tsc_offset,
            tsc_mhz=cpumodel.TSC_MHZ,
            event_ns=EVENT_NS,
            pause_ns=PAUSE_NS,
        )

    def enter(self) -> None:
        """The engine is about to run."""
        if self._exits is not None:
            # Who debugs wants to know of each.
            self._exits.enable(not self._debug.active)

    def settle(self) -> None:
        """The engine has returned."""
        if self._line_held_back:
            self._line_held_back = False
            self._cpu.set_interrupt_line(True)

    def _on_interrupt(self, _handle: int, number: int, _user: int) -> None:
        state = self._state
        try:
            state.d[at.OLD_EXCEPTION // 4] = 0xFFFFFFFF
            error_code = state.d[at.ERROR_CODE // 4]
            if number < 0x100:
                if self._debug.active:
                    self._debug.event()
                self._machine.counters.faults += 1
                if state.d[at.IS_INT // 4]:
                    # Left set, the engine would move RIP behind this INT again at the next intercept.
                    state.d[at.IS_INT // 4] = 0
                    self._delivery.software(number)
                    return
                refused = self._ports.settle() if number == DEBUG else None
                if refused is not None:
                    raise refused
                self._delivery.exception(number, error_code)
                return
            self._exit(number - 0x100, error_code)
        except GuestFault as fault:
            self._machine.counters.faults += 1
            self._delivery.exception(fault.vector, fault.error_code)
        except BaseException as error:
            self._guard.fail(error)

    def _exit(self, code: int, info: int) -> None:
        if code == EXIT_VINTR:
            if self._fills.fault is None:
                self._engine.interrupt()
            else:
                # A fill that just failed comes first: its fault is delivered when the engine has returned, and the
                # engine would not return while the line is high.
                self._state.withdraw(at.REQUEST_IRQ_BYTE)
                self._line_held_back = True
            return
        if code == EXIT_SMI:
            self._engine.take_kick()
            self._engine.leave()
            return
        if self._debug.active:
            self._debug.event()
        self._guard.tick()
        stepping = self._state.q[at.EFLAGS // 8] & FLAG_TF
        if self._intercepts.exit(code, info):
            if stepping:
                self._delivery.single_step()
            return
        if code == EXIT_HLT:
            self._intercepts.skip()
            self._engine.halt()
        elif code == EXIT_SHUTDOWN:
            self._machine.end(result.FAULT, f"triple fault at rip {self._cpu.rip:#x}")
        else:
            self._machine.end(result.FAULT, f"unexpected exit {code:#x} at rip {self._cpu.rip:#x}")

    def _on_invalid(self, _handle: int, _user: int) -> bool:
        try:
            self._state.d[at.OLD_EXCEPTION // 4] = 0xFFFFFFFF
            if self._debug.active:
                self._debug.event()
            self._intercepts.unknown_opcode()
        except GuestFault as fault:
            self._machine.counters.faults += 1
            self._delivery.exception(fault.vector, fault.error_code)
        except BaseException as error:
            self._guard.fail(error)
        return True

    def _on_syscall(self, _handle: int, _user: int) -> None:
        self._system_call(enter_by_syscall)

    def _on_sysenter(self, _handle: int, _user: int) -> None:
        self._system_call(enter_by_sysenter)

    def _system_call(self, enter: Callable[[EngineCpu], None]) -> None:
        try:
            try:
                enter(self._cpu)
            except GuestFault as fault:
                self._machine.counters.faults += 1
                self._delivery.exception(fault.vector, fault.error_code)
                self._cpu.set("rip", self._cpu.rip - SYSTEM_CALL_LENGTH)
        except BaseException as error:
            self._guard.fail(error)
