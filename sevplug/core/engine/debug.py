"""Breakpoints and single steps by the engine's own means: nothing of them is in the guest's memory or flags.

The engine compares each instruction that it translates with a list of linear addresses, and leaves with an exception of
its own in front of one that is in it.  In its single-step mode it translates one instruction at a time and leaves
behind each.  Both are part of translated code, which is dropped when they change; what has neither is translated as
ever.  (QEMU's ``accel/tcg/translator.c`` and ``target/i386/bpt_helper.c``.)

The guest's own breakpoints, in its debug registers, are in the same list.  The engine's handler knows them by RIP
without the segment's base, and where that is not zero it takes none for the guest's: `uc_emu_start` then waits for a
debugger that never comes.  So this handler is put in its place.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from sevplug.core.engine import internals as at
from sevplug.core.engine.delivery import DEBUG
from sevplug.core.engine.vcpu import FLAG_RF, FLAG_TF, EngineCpu

if TYPE_CHECKING:
    from sevplug.core.engine.engine import Engine
    from sevplug.core.machine import Machine

CS = 1
# How many breakpoints the guest has.
_OWN = 4
# SYSCALL and SYSRET, which trap by the trap flag that they leave.
_SYSTEM_CALLS = (b"\x0f\x05", b"\x0f\x07")
_REX_W = b"\x48"


class Breakpoints:
    """Linear addresses in front of whose instruction a running guest stops; for the machine's thread.

    An address is in it as often as it was inserted, so that two who use one do not take it from each other.
    """

    def __init__(self, changed: Callable[[], None]) -> None:
        """``changed`` is called at each change."""
        self._count: Counter[int] = Counter()
        self._changed = changed

    def insert(self, address: int) -> None:
        """Stop at linear ``address`` (64 bits) from now on."""
        self._count[address] += 1
        self._changed()

    def remove(self, address: int) -> None:
        """Take one insertion back; KeyError when there is none."""
        if address not in self._count:
            raise KeyError(f"no breakpoint at {address:#x}")
        self._count[address] -= 1
        if not self._count[address]:
            del self._count[address]
        self._changed()

    def __contains__(self, address: int) -> bool:
        return address in self._count

    def __iter__(self) -> Iterator[int]:
        return iter(self._count)

    def __len__(self) -> int:
        return len(self._count)


class DebugUnit:
    """Breakpoints and steps of one engine's guest; for the machine's thread, between two instructions."""

    def __init__(self, machine: Machine, engine: Engine, cpu: EngineCpu) -> None:
        self.breakpoints = Breakpoints(self._wanted)
        # Whether `enter` has to be used in place of the engine's own.
        self.active = False
        # The engine left with its debug exception.
        self.left = False
        # Something came in the place of an instruction, or it was executed.
        self.done = False
        self._machine, self._engine = machine, engine
        self._cpu, self._state = cpu, cpu.state
        # Whether the next entry is for one instruction, and who wants to know.
        self._single = False
        self._then: Callable[[], None] | None = None
        # Where the guest stopped at a breakpoint, until it goes on.
        self._stopped_at: int | None = None
        # What the engine knows of.
        self._inserted: set[int] = set()
        # Of the instruction that is stepped: whether it has the trap flag set; whether it is SYSCALL or SYSRET.
        self._flag = self._system_call = False
        self._state.replace_debug_handler(self._on_debug)

    # -- for those who debug ---------------------------------------------------------------------------------------

    def step(self, done: Callable[[], None] = lambda: None) -> None:
        """Have a guest that does not run execute one instruction, or what comes in its place.

        An exception's step ends in front of its handler's first instruction.  So does the step of a halted CPU, which
        waits for an interrupt; no other interrupt is taken, as in QEMU, and of REP each round is a step.

        `Machine.advance` or `run` does it; ``done`` is called then, between two instructions, and never when the guest
        ends.  The launch is finished at the first time.  The machine's status becomes ``debug``, and no event tells.
        """
        if self._machine.status == "running":
            return
        self._machine.finish_launch()
        self._machine.status = "debug"
        self._machine.clock.go_on()
        self._single, self._then = True, done
        self._wanted()

    def cancel_step(self) -> bool:
        """Take back a step that has not been done, such as that of a guest that sleeps.  False: there is none."""
        if self._then is None:
            return False
        self._end_step()
        return True

    @property
    def stepping(self) -> bool:
        """Whether a step is wanted that has not been done."""
        return self._then is not None

    @property
    def linear_rip(self) -> int:
        """The linear address of the next instruction."""
        cpu = self._cpu
        return cpu.rip if cpu.in_64bit_code else cpu.rip + cpu.segment(CS)[1] & 0xFFFF_FFFF

    # -- for the engine --------------------------------------------------------------------------------------------

    def enter(self) -> None:
        """`Engine.enter` with breakpoints or for a step; while `active`."""
        self._prepare()
        if not self._single:
            self._engine.enter()
            return
        self.done = False
        if self._begin():
            line = self._cpu.interrupt_line
            self._state.withdraw(at.REQUEST_IRQ_BYTE)
            self._engine.enter()
            if line:
                self._cpu.set_interrupt_line(True)
        else:
            self._raise_own()
        if self.done:
            self._stepped()

    def woken(self) -> None:
        """An interrupt has ended a halt."""
        if self._single:
            self._stepped()

    def event(self) -> None:
        """Something came in the place of an instruction, or it was executed by other means; for callbacks."""
        if self._single:
            self.done = True
            self._engine.stop()

    def settle(self) -> None:
        """The engine left with its debug exception, and has returned."""
        self.left = False
        if self._single:
            self.done = True
            # The engine leaves the guest's own trap out.
            if self._state.q[at.EFLAGS // 8] & FLAG_TF if self._system_call else self._flag:
                self._engine.delivery.single_step()
        elif self.linear_rip in self.breakpoints:
            self._stopped_at = self.linear_rip
            self._machine.pause("debug")
        elif self._is_own():
            self._raise_own()

    def rest(self) -> None:
        """The guest goes on from here, whatever was before: past a breakpoint that is here, as it would have."""
        here = self.linear_rip
        self._stopped_at = here if here in self.breakpoints else None
        self._wanted()

    # -- inside ----------------------------------------------------------------------------------------------------

    def _wanted(self) -> None:
        self.active = True

    def _prepare(self) -> None:
        """Have the engine translate for what is wanted."""
        stopped_at, self._stopped_at = self._stopped_at, None
        if stopped_at == self.linear_rip:
            # It goes on from its breakpoint, and must not stop there again.
            self._single = True
        if self._state.single_step != self._single:
            self._state.single_step = self._single
            self._engine.drop_code()
        if self._single:
            return  # the engine looks at no breakpoints then
        wanted = set(self.breakpoints)
        if wanted != self._inserted:
            for address in self._inserted - wanted:
                self._state.remove_breakpoint(address)
            for address in wanted - self._inserted:
                self._state.insert_breakpoint(address)
            self._inserted = wanted
            self._engine.drop_code()
        self.active = bool(wanted)

    def _begin(self) -> bool:
        """A step begins.  False: the guest's own breakpoint comes before the instruction."""
        flags = self._state.q[at.EFLAGS // 8]
        code = self._engine.peek(self.linear_rip, 3)
        self._flag = bool(flags & FLAG_TF)
        self._system_call = code.removeprefix(_REX_W).startswith(_SYSTEM_CALLS)
        return bool(flags & FLAG_RF) or not self._is_own()

    def _stepped(self) -> None:
        then = self._then
        self._end_step()
        if then is not None:
            self._engine.leave()
            then()

    def _end_step(self) -> None:
        self._single, self._then = False, None
        if self._machine.status != "running":
            self._machine.clock.stand_still()

    def _is_own(self) -> bool:
        """Whether one of the guest's own breakpoints on instructions is here; DR6 says which then (APM 2, 13.1)."""
        q = self._state.q
        control, here = q[at.DR7 // 8], self.linear_rip
        hits = enabled = 0
        for number in range(_OWN):
            if not control >> (16 + 4 * number) & 3 and q[at.DR0 // 8 + number] == here:
                hits |= 1 << number
                enabled |= control >> 2 * number & 3
        if enabled:
            q[at.DR6 // 8] = q[at.DR6 // 8] & ~0xF | hits
        return bool(enabled)

    def _raise_own(self) -> None:
        self._machine.counters.faults += 1
        self._engine.delivery.exception(DEBUG)
        self.done = True

    def _on_debug(self) -> None:
        """In place of the engine's own handler, between two instructions."""
        self.left = True
        self._engine.stop()
