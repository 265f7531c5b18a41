"""The compiled parts, where they were built: found beside the module that loads them, and left out on demand.

They are plain C that knows nothing of Python, so one build serves every interpreter, and are called through ctypes.
Nothing depends on them: without a C compiler at installation, or with SEVPLUG_PURE=1, Python does it all.
"""

from __future__ import annotations

import ctypes
import os
from array import array
from ctypes import c_uint8
from pathlib import Path
from typing import Final

# Set to anything but 0, it leaves them out.
PURE_VARIABLE: Final = "SEVPLUG_PURE"
WAY_OUT: Final = f"install sevplug again, or set {PURE_VARIABLE}=1"


def wanted() -> bool:
    """Whether compiled parts are to be used where they are there."""
    return os.environ.get(PURE_VARIABLE, "0") in ("", "0")


def find(folder: Path, name: str) -> Path | None:
    """The library ``name`` in ``folder``, or None where it was not built."""
    found = sorted(folder.glob(f"{name}.*so"))
    return found[-1] if found else None


def describe(there: bool) -> str:
    """``compiled`` or ``python``, and why, for a part that can be used or not."""
    if there:
        return "compiled"
    return "python (the compiled one was not built)" if wanted() else f"python ({PURE_VARIABLE} is set)"


def address_of(buffer: memoryview | bytearray | array[int]) -> tuple[int, object]:
    """Where a writable buffer lies, and what has to be kept as long as that is used."""
    view = memoryview(buffer).cast("B")
    kept = (c_uint8 * view.nbytes).from_buffer(view)
    return ctypes.addressof(kept), kept
