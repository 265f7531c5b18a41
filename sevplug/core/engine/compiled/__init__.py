"""The compiled twins of the page walk, of the TLB-miss callback and of what is intercepted most, where they were built.

See `sevplug.native` for what such a part is.
"""

from __future__ import annotations

import ctypes
from ctypes import POINTER, c_int64, c_size_t, c_uint32, c_uint64
from functools import cache
from pathlib import Path

from sevplug import native
from sevplug.core.engine.compiled import structures
from sevplug.core.errors import EngineError


def load() -> ctypes.CDLL | None:
    """The twin's library; None where it was not built or is not wanted.

    `EngineError` when it does not belong to these sources.
    """
    return _load() if native.wanted() else None


@cache
def _load() -> ctypes.CDLL | None:
    found = native.find(Path(__file__).parent, "_fill")
    if found is None:
        return None
    try:
        library = ctypes.CDLL(str(found))
        shared = (
            (library.sevplug_size_of_fills, structures.Fills),
            (library.sevplug_size_of_exits, structures.Exits),
        )
        library.sevplug_translate.restype = c_int64
        library.sevplug_translate.argtypes = [
            POINTER(structures.Walker),
            c_uint64,
            c_uint32,
            POINTER(structures.Controls),
        ]
    except (OSError, AttributeError) as error:
        raise EngineError(f"the compiled page walk in {found} cannot be used: {error}; {native.WAY_OUT}") from None
    for size_of, structure in shared:
        size_of.restype, size_of.argtypes = c_size_t, []
        if size_of() != ctypes.sizeof(structure):
            raise EngineError(f"the compiled page walk in {found} was built from other sources; {native.WAY_OUT}")
    return library


def describe() -> str:
    """Which page walk a machine that is built now would have, and why."""
    return native.describe(load() is not None)
