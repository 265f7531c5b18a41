"""Where another process's first thread is, again and again: its program counter, by ptrace(2), on x86-64.

A sampler inside the process would see nothing.  Another Python thread gets the interpreter's lock only while the
machine's thread is in the CPU engine, a signal handler in Python runs only when it is not, and faulthandler's, which is
C, meets CPython 3.11 now and then where it has no valid stack and crashes it.
"""

from __future__ import annotations

import ctypes
import os
from ctypes import c_int, c_long, c_void_p

# From linux/ptrace.h, and from sys/user.h the place of rip in struct user.
_PEEKUSER, _CONT, _DETACH, _SEIZE, _INTERRUPT = 3, 7, 17, 0x4206, 0x4207
_RIP = 16 * 8
_EVENT_STOP = 128


class Tracer:
    """Follows the process ``pid``, a child of this one; every call from the thread that made it.

    While it follows, nobody else may wait for the process.  `OSError` when it cannot be followed.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._ptrace = ctypes.CDLL(None, use_errno=True).ptrace
        self._ptrace.restype = c_long
        self._ptrace.argtypes = [c_int, c_int, c_void_p, c_void_p]
        self._call(_SEIZE)

    def program_counter(self) -> int | None:
        """Stop the thread, look, and let it go on.  None once it is ending."""
        if not self._stop():
            return None
        address = self._call(_PEEKUSER, _RIP) & 0xFFFF_FFFF_FFFF_FFFF
        self._call(_CONT)
        return address

    def let_go(self) -> None:
        """Follow no longer; harmless when the process has ended."""
        try:
            if self._stop():
                self._call(_DETACH)
        except OSError:
            return

    def _stop(self) -> bool:
        """Stop the thread, on the way hand over what signals come for it.  False when it is gone."""
        self._call(_INTERRUPT)
        while True:
            # WNOWAIT first: the exit status belongs to whoever started the process.
            if os.waitid(os.P_PID, self._pid, os.WEXITED | os.WSTOPPED | os.WNOWAIT).si_code in (  # type: ignore[union-attr]
                os.CLD_EXITED,
                os.CLD_KILLED,
                os.CLD_DUMPED,
            ):
                return False
            _pid, status = os.waitpid(self._pid, 0)
            if status >> 16 == _EVENT_STOP:
                return True
            self._call(_CONT, 0, os.WSTOPSIG(status))

    def _call(self, request: int, address: int = 0, data: int = 0) -> int:
        ctypes.set_errno(0)
        result: int = self._ptrace(request, self._pid, address, data)
        error = ctypes.get_errno()
        if result == -1 and error:
            raise OSError(error, os.strerror(error))
        return result


class Places:
    """The parts of a process's address space that belong to the CPU engine."""

    def __init__(self, pid: int) -> None:
        self._maps = f"/proc/{pid}/maps"
        self._ranges: list[tuple[int, int, bool]] = []

    def is_engine(self, address: int) -> bool:
        """Whether the code at ``address`` is the engine's or what it made of the guest's."""
        found = self._find(address)
        if found is None:
            with open(self._maps) as text:
                self._ranges = engine_ranges(text.read())
            found = self._find(address)
        return bool(found)

    def _find(self, address: int) -> bool | None:
        return next((engine for start, end, engine in self._ranges if start <= address < end), None)


def engine_ranges(maps: str) -> list[tuple[int, int, bool]]:
    """(start, end, whether it is the engine's) of each executable range of a /proc/PID/maps (proc(5)).

    The engine's are libunicorn and executable memory without a name, which is where it translates the guest's code to.
    """
    found = []
    for line in maps.splitlines():
        addresses, rights, _offset, _device, _inode, *name = line.split(maxsplit=5)
        if "x" in rights:
            start, end = (int(number, 16) for number in addresses.split("-"))
            found.append((start, end, not name or "libunicorn" in name[0]))
    return found
