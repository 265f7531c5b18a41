"""The one table of the engine's internals, and the checks that it fits the library at hand.

The engine's API cannot write a segment's descriptor cache, ask for an interrupt window or trap an MSR.  Its CPU
state is a plain structure, so it is read and written in place.  The offsets belong to one release (QEMU 5.0.1's
``CPUX86State`` as unicorn 2.1.4 builds it); `CpuState` refuses to work with anything that does not match.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from ctypes import c_uint32, c_uint64, c_void_p

from sevplug.core.engine import library
from sevplug.core.errors import EngineError

# In the engine's handle.
UC_CPU = 0x1B8
UC_INVALID_ADDRESS = 0x588
UC_NO_EXIT_REQUEST, UC_INIT_DONE = 0x7F2, 0x7F3  # one byte each
# In CPUState.
CPU_SIZE = 0xB000
CPU_INTERRUPT_REQUEST = 0x1C
CPU_SINGLE_STEP = 0x20
CPU_ICOUNT_POINTER = 0x130
CPU_HANDLE, CPU_CLASS = 0x81A8, 0x81B0
ENV = 0x8A50
# In CPUTLB, which lies in front of CPUX86State; a CPUTLBDesc and a CPUTLBDescFast for each of three modes.
TLB_DIRTY = -0x890
TLB_MODES, TLB_MODE_SIZE = -0x870, 0x2B8
TLB_WINDOW_BEGIN, TLB_WINDOW_MAX, TLB_USED = 0x10, 0x18, 0x20
TLB_MASKS, TLB_MASK_SIZE = -0x40, 0x10
TLB_ENTRY_SHIFT = 6
# In CPUClass.
CLASS_DEBUG_HANDLER = 0x78
# In CPUX86State, as byte offsets; registers come in the encoding's order (rax, rcx, rdx, rbx, rsp, …).
EIP = 0x80
EFLAGS = 0x88
CC_SRC = 0x98
CC_OP = 0xA8
DF = 0xAC
HFLAGS = 0xB0
SEGMENTS = 0xB8
SEGMENT_SIZE = 24
CR0, CR2, CR3, CR4 = 0x1A8, 0x1B8, 0x1C0, 0x1C8
EFER = 0x250
FPSTT, FPUS, FPUC, FPTAGS, FPREGS = 0x25C, 0x260, 0x262, 0x264, 0x270
FPOP, FPIP, FPDP = 0x2F0, 0x2F8, 0x300  # behind the first lie the selectors of the other two
MXCSR = 0x330
XMM, XMM_SIZE = 0x338, 64
STAR, LSTAR, CSTAR, FMASK = 0x12D8, 0x12E8, 0x12F0, 0x12F8
SYSENTER_CS, SYSENTER_ESP, SYSENTER_EIP = 0x12C0, 0x12C8, 0x12D0
XCR0 = 0x1328
ERROR_CODE = 0x1508
IS_INT = 0x150C
DR0, DR6, DR7 = 0x1518, 0x1548, 0x1550
OLD_EXCEPTION = 0x1578
VM_VMCB = 0x1580
INTERCEPT = 0x1590
INTERCEPT_CR = 0x1598  # reads in the low 16 bits, writes above them, a bit a register
END_OF_RESET = 0x15C0  # what lies before it, a reset clears
FEATURES_ECX = 0x1608  # CPUID 1 ECX
FEATURES_EXTENDED_ECX = 0x1638  # CPUID 80000001 ECX
ENV_HANDLE = 0x1B58

# Bits of hflags.
HF_CPL = 3
HF_INHIBIT_IRQ = 1 << 3
HF_CS32 = 1 << 4
HF_SS32 = 1 << 5
HF_ADDSEG = 1 << 6
HF_PE = 1 << 7
HF_LMA = 1 << 14
HF_CS64 = 1 << 15
HF_GUEST = 1 << 21
HF_OSFXSR = 1 << 22
HF_IOBPT = 1 << 24
CC_OP_EFLAGS = 1
MXCSR_RESET = 0x1F80
BREAKPOINT_OF_DEBUGGER = 0x10  # QEMU's BP_GDB
FEATURE_SVM = 1 << 2
FEATURE_RDRAND = 1 << 30

# Bits of interrupt_request; each is alone in its byte, so two threads never write one byte.
REQUEST_KICK_BYTE, REQUEST_KICK = 0, 0x40  # the engine's SMI
REQUEST_IRQ_BYTE, REQUEST_IRQ = 1, 0x01  # the engine's VIRQ

# What a CPU that never ran holds: (name, byte offset in the state, 32-bit value).
_FRESH = (
    ("eflags", EFLAGS, 2),
    ("cc_op", CC_OP, CC_OP_EFLAGS),
    ("df", DF, 1),
    ("cr0", CR0, 0x11),
    ("cr3", CR3, 0),
    ("hflags", HFLAGS, 0x40C0B0),
    ("efer", EFER, 0x500),
    ("xcr0", XCR0, 3),
    ("dr6", DR6, 0xFFFF0FF0),
    ("dr7", DR7, 0x400),
    ("old_exception", OLD_EXCEPTION, 0xFFFFFFFF),
    ("vm_vmcb", VM_VMCB, 0),
    ("intercept", INTERCEPT, 0),
    ("features", FEATURES_ECX, 0xC6D8220B),
    ("features", FEATURES_EXTENDED_ECX, 0x75),
)


class CpuState:
    """The engine's CPU structures as writable views.

    ``q`` and ``d`` are the CPU state as arrays of 64- and 32-bit numbers (index = byte offset / 8 or / 4); ``cpu``
    is the generic part as bytes.
    """

    def __init__(self, handle: c_void_p) -> None:
        lib = library.load()
        version = lib.uc_version(None, None)
        if version >> 8 != 0x020104:
            raise _unknown(f"its version word is {version:#x}")
        assert handle.value is not None
        # The first emulation builds the CPU; asking for a register does it too.
        flags = c_uint64()
        library.check(lib.uc_reg_read(handle, library.REG_RFLAGS, ctypes.byref(flags)), "uc_reg_read")
        cpu = c_uint64.from_address(handle.value + UC_CPU).value
        if not cpu:
            raise _unknown("no CPU")
        self.cpu_address = cpu
        self.env_address = cpu + ENV
        self._class_address = c_uint64.from_address(cpu + CPU_CLASS).value
        self.cpu = memoryview((ctypes.c_uint8 * CPU_SIZE).from_address(cpu)).cast("B")
        self.q = memoryview((c_uint64 * (0x2000 // 8)).from_address(cpu + ENV)).cast("B").cast("Q")
        self.d = memoryview((c_uint32 * (0x2000 // 4)).from_address(cpu + ENV)).cast("B").cast("I")
        self._check(handle.value)
        self._fresh = bytes(self.q[: END_OF_RESET // 8])
        icount = c_uint64.from_address(cpu + CPU_ICOUNT_POINTER).value
        self._icount = memoryview((ctypes.c_uint16 * 2).from_address(icount)).cast("B").cast("H")
        # The guest is told of no SVM: it must not get at the engine's either, which would undo the intercepts.
        self.d[FEATURES_EXTENDED_ECX // 4] &= ~FEATURE_SVM
        # RDRAND is emulated, from a seed.
        self.d[FEATURES_ECX // 4] &= ~FEATURE_RDRAND
        # Without this, a request to leave is also honoured between the load and the store of one instruction, or
        # behind its store, and then the whole instruction is run again.
        ctypes.c_uint8.from_address(handle.value + UC_NO_EXIT_REQUEST).value = 1

    def request(self, byte: int, bit: int) -> None:
        """Set a bit of interrupt_request and make running code return to the engine's loop at its next block.

        May be called from another thread.
        """
        self.cpu[CPU_INTERRUPT_REQUEST + byte] = bit
        self._icount[1] = 0xFFFF

    def withdraw(self, byte: int) -> None:
        """Clear a byte of interrupt_request."""
        self.cpu[CPU_INTERRUPT_REQUEST + byte] = 0

    def reset(self) -> None:
        """Everything a reset clears, as the engine made it; the caller builds the architecture's state on top."""
        lib = library.load()
        lib.cpu_x86_update_dr7_x86_64(c_void_p(self.env_address), 0)  # it frees the breakpoints
        self.q[: END_OF_RESET // 8] = memoryview(self._fresh).cast("Q")
        lib.helper_fninit_x86_64(c_void_p(self.env_address))
        lib.helper_ldmxcsr_x86_64(c_void_p(self.env_address), MXCSR_RESET)

    # -- breakpoints and steps ---------------------------------------------------------------------------------------

    @property
    def single_step(self) -> bool:
        """Whether the engine translates for its single-step mode; translated code must be dropped after a change."""
        return self.cpu[CPU_SINGLE_STEP] != 0

    @single_step.setter
    def single_step(self, on: bool) -> None:
        self.cpu[CPU_SINGLE_STEP] = on

    def insert_breakpoint(self, address: int) -> None:
        """Have the engine leave with its debug exception in front of the instruction at linear ``address``."""
        library.load().cpu_breakpoint_insert_x86_64(self.cpu_address, address, BREAKPOINT_OF_DEBUGGER, None)

    def remove_breakpoint(self, address: int) -> None:
        """Undo `insert_breakpoint`."""
        library.load().cpu_breakpoint_remove_x86_64(self.cpu_address, address, BREAKPOINT_OF_DEBUGGER)

    def replace_debug_handler(self, handler: Callable[[], None]) -> None:
        """Have the engine call ``handler`` when it leaves with its debug exception; it must raise nothing."""
        self._debug_handler = library.DEBUG_CALLBACK(lambda _cpu: handler())
        address = ctypes.cast(self._debug_handler, c_void_p).value
        c_uint64.from_address(self._class_address + CLASS_DEBUG_HANDLER).value = address or 0

    def _check(self, handle: int) -> None:
        """Compare what a fresh CPU must hold with what the table finds."""
        if self.q[ENV_HANDLE // 8] != handle:
            raise _unknown("the CPU state does not point back to its handle")
        if c_uint64.from_address(self.cpu_address + CPU_HANDLE).value != handle:
            raise _unknown("the CPU does not point back to its handle")
        ours = ctypes.cast(library.load().breakpoint_handler_x86_64, c_void_p).value
        if c_uint64.from_address(self._class_address + CLASS_DEBUG_HANDLER).value != ours:
            raise _unknown("the handler of debug exceptions is not where it was expected")
        if self.cpu[CPU_SINGLE_STEP]:
            raise _unknown("a new CPU is in single-step mode")
        for what, offset, value in (("no_exit_request", UC_NO_EXIT_REQUEST, 0), ("init_done", UC_INIT_DONE, 1)):
            byte = ctypes.c_uint8.from_address(handle + offset).value
            if byte != value:
                raise _unknown(f"{what} is {byte} and not {value} in a new handle")
        for mode in range(3):
            entries = c_uint64.from_address(self.env_address + TLB_MASKS + TLB_MASK_SIZE * mode).value
            large_pages = (c_uint64 * 2).from_address(self.env_address + TLB_MODES + TLB_MODE_SIZE * mode)
            if entries != 0xFF << TLB_ENTRY_SHIFT or set(large_pages) != {0xFFFF_FFFF_FFFF_FFFF}:
                raise _unknown("a new CPU's translation cache is not what was expected")
        for what, offset, expected in _FRESH:
            found = self.d[offset // 4]
            if found != expected:
                raise _unknown(f"{what} is {found:#x} and not {expected:#x} in a new CPU")


def _unknown(found: str) -> EngineError:
    return EngineError(
        f"the CPU engine's inside is not that of unicorn 2.1.4 ({found}): expected that very release from its wheel"
    )
