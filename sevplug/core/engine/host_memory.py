"""Host memory: buffers of guest memory laid over a file, copy on write, at the addresses that they have.

The engine and the compiled walk know guest memory by its host address.  So what takes the place of its contents is
mapped over it, and what they know stays right.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Callable
from ctypes import c_int, c_long, c_size_t, c_void_p
from functools import cache

from sevplug.core.errors import EngineError

_MAP_FIXED = 0x10
_PAGE = mmap.PAGESIZE


@cache
def _mmap() -> ctypes._NamedFuncPointer:
    function = ctypes.CDLL(None, use_errno=True).mmap
    function.restype = c_void_p
    function.argtypes = [c_void_p, c_size_t, c_int, c_int, c_int, c_long]
    return function


@cache
def _trim() -> Callable[[int], int]:
    function: Callable[[int], int] = getattr(ctypes.CDLL(None), "malloc_trim", lambda _left: 0)
    return function


def trim() -> None:
    """Give back to the host what this process has freed, where the C library has a way to.

    The first large block that is freed makes glibc keep the next ones, up to twice its size (mallopt(3),
    M_MMAP_THRESHOLD).
    """
    _trim()(0)


def map_zeros(buffer: memoryview) -> None:
    """``buffer``, whole pages of a mapping, becomes zeros, and gives its memory back."""
    _map(buffer, -1, 0, mmap.MAP_ANONYMOUS)


def map_file(buffer: memoryview, descriptor: int, offset: int) -> None:
    """``buffer``, whole pages of a mapping, becomes a private copy of the file from ``offset`` on.

    A page is copied when it is stored to, and shared with everybody else who maps the file until then.
    """
    _map(buffer, descriptor, offset, 0)


def _map(buffer: memoryview, descriptor: int, offset: int, flags: int) -> None:
    address = ctypes.addressof(ctypes.c_char.from_buffer(buffer))
    size = buffer.nbytes
    if address % _PAGE or size % _PAGE or offset % _PAGE:
        raise ValueError("only whole pages can be mapped")
    protection = mmap.PROT_READ | mmap.PROT_WRITE
    found = _mmap()(address, size, protection, mmap.MAP_PRIVATE | _MAP_FIXED | flags, descriptor, offset)
    if found != address:
        raise EngineError(f"guest memory cannot be mapped: {os.strerror(ctypes.get_errno())}")
