"""The engine's C interface: unicorn's shared library, called directly.

The Python binding adds a microsecond to each callback and copies what it passes; a boot makes a million callbacks.
So the few functions needed are declared here.  The library comes with the ``unicorn`` distribution, pinned in
pyproject.toml.
"""

from __future__ import annotations

import ctypes
import importlib.util
from ctypes import CFUNCTYPE, c_bool, c_int, c_int64, c_size_t, c_uint32, c_uint64, c_void_p
from functools import cache
from pathlib import Path

from sevplug.core.errors import EngineError

# From unicorn's headers (include/unicorn/unicorn.h, x86.h), release 2.1.
ARCH_X86 = 4
MODE_64 = 8
HOOK_INTR = 1 << 0
HOOK_INSN = 1 << 1
HOOK_FETCH_PROT = 1 << 9
HOOK_INSN_INVALID = 1 << 14
HOOK_TLB_FILL = 1 << 17
INS_IN = 218
INS_OUT = 500
INS_SYSCALL = 699
INS_SYSENTER = 700
MEM_READ = 16
MEM_WRITE = 17
MEM_FETCH = 18
CPU_EPYC = 35
REG_RFLAGS = 253
REG_ST0, REG_XMM0 = 114, 122  # the others follow
REG_FPSW, REG_FPCW, REG_FPTAG, REG_MXCSR = 31, 246, 247, 249
REG_MSR = 248
PROT_READ, PROT_WRITE, PROT_EXEC = 1, 2, 4
ERR_EXCEPTION = 21
# uc_ctl requests: direction << 30 | arguments << 26 | what.
_WRITE = 1 << 30
CTL_USE_EXITS = _WRITE | 1 << 26 | 4
CTL_CPU_MODEL = _WRITE | 1 << 26 | 7
CTL_TLB_TYPE = _WRITE | 1 << 26 | 12
CTL_BUFFER_SIZE = _WRITE | 1 << 26 | 13
CTL_TB_FLUSH = _WRITE | 10
CTL_TLB_FLUSH = _WRITE | 11
TLB_VIRTUAL = 1
# Bytes for translated code, at least 1 MiB; less costs time (docs/explanation/performance.md).
CODE_BUFFER = 48 << 20

INTR_CALLBACK = CFUNCTYPE(None, c_void_p, c_uint32, c_void_p)
MEMORY_CALLBACK = CFUNCTYPE(c_bool, c_void_p, c_int, c_uint64, c_int, c_int64, c_void_p)
INVALID_CALLBACK = CFUNCTYPE(c_bool, c_void_p, c_void_p)
IN_CALLBACK = CFUNCTYPE(c_uint32, c_void_p, c_uint32, c_int, c_void_p)
OUT_CALLBACK = CFUNCTYPE(None, c_void_p, c_uint32, c_int, c_uint32, c_void_p)
INSN_CALLBACK = CFUNCTYPE(None, c_void_p, c_void_p)
DEBUG_CALLBACK = CFUNCTYPE(None, c_void_p)
FILL_CALLBACK = CFUNCTYPE(c_bool, c_void_p, c_uint64, c_int, c_void_p, c_void_p)
MMIO_READ_CALLBACK = CFUNCTYPE(c_uint64, c_void_p, c_uint64, c_uint32, c_void_p)
MMIO_WRITE_CALLBACK = CFUNCTYPE(None, c_void_p, c_uint64, c_uint32, c_uint64, c_void_p)


@cache
def load() -> ctypes.CDLL:
    """The library with its prototypes set; `EngineError` when unicorn is not installed or lacks a function."""
    spec = importlib.util.find_spec("unicorn")
    if spec is None or not spec.submodule_search_locations:
        raise EngineError("the CPU engine is missing: expected the package unicorn 2.1.4")
    folder = Path(spec.submodule_search_locations[0]) / "lib"
    found = sorted(folder.glob("libunicorn.*"))
    if not found:
        raise EngineError(f"the CPU engine is missing: expected libunicorn in {folder}")
    try:
        library = ctypes.CDLL(str(found[-1]))
        for name, result, arguments in (
            ("uc_open", c_int, [c_int, c_int, c_void_p]),
            ("uc_close", c_int, [c_void_p]),
            ("uc_version", c_uint32, [c_void_p, c_void_p]),
            ("uc_emu_start", c_int, [c_void_p, c_uint64, c_uint64, c_uint64, c_size_t]),
            ("uc_emu_stop", c_int, [c_void_p]),
            ("uc_reg_read", c_int, [c_void_p, c_int, c_void_p]),
            ("uc_reg_write", c_int, [c_void_p, c_int, c_void_p]),
            ("uc_mem_map_ptr", c_int, [c_void_p, c_uint64, c_uint64, c_uint32, c_void_p]),
            ("uc_mmio_map", c_int, [c_void_p, c_uint64, c_uint64, c_void_p, c_void_p, c_void_p, c_void_p]),
            ("tlb_flush_x86_64", None, [c_void_p]),
            ("tlb_flush_page_x86_64", None, [c_void_p, c_uint64]),
            ("cpu_x86_cpuid_x86_64", None, [c_void_p, c_uint32, c_uint32, *[c_void_p] * 4]),
            ("cpu_x86_update_cr0_x86_64", None, [c_void_p, c_uint32]),
            ("cpu_x86_update_cr4_x86_64", None, [c_void_p, c_uint32]),
            ("cpu_x86_update_dr7_x86_64", None, [c_void_p, c_uint32]),
            ("cpu_breakpoint_insert_x86_64", c_int, [c_void_p, c_uint64, c_int, c_void_p]),
            ("cpu_breakpoint_remove_x86_64", c_int, [c_void_p, c_uint64, c_int]),
            ("breakpoint_handler_x86_64", None, [c_void_p]),
            ("helper_fninit_x86_64", None, [c_void_p]),
            ("helper_fldcw_x86_64", None, [c_void_p, c_uint32]),
            ("helper_ldmxcsr_x86_64", None, [c_void_p, c_uint32]),
        ):
            function = getattr(library, name)
            function.restype = result
            function.argtypes = arguments
        # Variadic in C: no prototype beyond the first arguments.
        library.uc_ctl.restype = c_int
        library.uc_hook_add.restype = c_int
        library.uc_strerror.restype = ctypes.c_char_p
    except (OSError, AttributeError) as error:
        raise EngineError(f"the CPU engine in {found[-1]} cannot be used: {error}") from None
    return library


def check(code: int, what: str) -> None:
    """Raise `EngineError` unless ``code`` is the engine's success."""
    if code:
        text = load().uc_strerror(c_int(code))
        raise EngineError(f"{what}: {text.decode() if text else code}")


def control(handle: c_void_p, request: int, *arguments: int) -> None:
    """``uc_ctl`` with integer arguments."""
    check(load().uc_ctl(handle, c_uint32(request), *(c_int64(argument) for argument in arguments)), "uc_ctl")


def hook(
    handle: c_void_p,
    kind: int,
    callback: object,
    instruction: int | None = None,
    argument: c_void_p | None = None,
    first: int = 1,
    last: int = 0,
) -> None:
    """``uc_hook_add``, over the whole address space unless ``first`` and ``last`` address say otherwise.

    The caller keeps ``callback`` alive. ``argument`` is what it gets as its last.
    """
    token = c_size_t()
    extra = () if instruction is None else (c_int(instruction),)
    code = load().uc_hook_add(
        handle,
        ctypes.byref(token),
        c_int(kind),
        callback,
        argument or c_void_p(),
        c_uint64(first),
        c_uint64(last),
        *extra,
    )
    check(code, "uc_hook_add")


class _Msr(ctypes.Structure):
    _fields_ = (("index", c_uint32), ("value", c_uint64))


def read_msr(handle: c_void_p, index: int) -> int:
    """An MSR that the engine keeps itself."""
    message = _Msr(index, 0)
    check(load().uc_reg_read(handle, REG_MSR, ctypes.byref(message)), "rdmsr")
    return int(message.value)


def write_msr(handle: c_void_p, index: int, value: int) -> None:
    """Write an MSR that the engine keeps itself."""
    message = _Msr(index, value)
    check(load().uc_reg_write(handle, REG_MSR, ctypes.byref(message)), "wrmsr")
