"""What is measured inside this process: hashing, page walks, calls of hooks."""

from __future__ import annotations

import mmap
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pluggy
from long_guest import PAGES, long_guest
from machines import machine_with
from measuring import Pair
from peers import Missing, find_program

from sevplug import native
from sevplug.core.binding import bind_first
from sevplug.core.config import ObjectSpec
from sevplug.core.engine import compiled
from sevplug.core.hookspecs import hookimpl
from sevplug.core.plugins import load_plugins
from sevplug.plugins.sev import SevPlugin
from sevplug.sevapi.digest import launch_digest

_FILE_MIB = 256
_FILLS, _CALLS = 100_000, 1_000_000
_SEV = ObjectSpec("sev-emulated", "sev0", {"cbitpos": "47", "reduced-phys-bits": "1"})


def _timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


# -- the launch digest -------------------------------------------------------------------------------------------------


@contextmanager
def _file() -> Iterator[Path]:
    """A file of random bytes that the page cache holds."""
    with tempfile.NamedTemporaryFile() as file:
        for _ in range(_FILE_MIB):
            file.write(os.urandom(1 << 20))
        file.flush()
        yield Path(file.name)


def _digest_here() -> float:
    with _file() as path, path.open("rb") as file:

        def work() -> None:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
                launch_digest(memoryview(mapped))

        return _timed(work)


def _digest_there() -> float:
    with _file() as path:
        command = [find_program("openssl", "openssl"), "dgst", "-sha256", str(path)]
        return _timed(lambda: subprocess.run(command, check=True, capture_output=True))


LAUNCH_DIGEST = Pair(_digest_here, _digest_there, lambda: find_program("openssl", "openssl") and None)


# -- page walks --------------------------------------------------------------------------------------------------------


@cache
def _guest() -> bytes:
    """It touches one page after the other, each without a cached translation."""
    return long_guest(f"""
        mov edx, {_FILLS // 256}
    1:  mov edi, {PAGES + 0x1000:#x}; mov ecx, 256
    2:  invlpg [rdi]; mov [rdi], ecx; add edi, 0x1000; loop 2b
        dec edx; jnz 1b
    """)


def _fills(*, pure: bool) -> float:
    kept = os.environ.get(native.PURE_VARIABLE)
    os.environ[native.PURE_VARIABLE] = "1" if pure else "0"
    try:
        with machine_with(_guest(), SevPlugin(), objects=(_SEV,), machine_options={}) as (machine, _board):
            return _timed(lambda: machine.run(timeout=60))
    finally:
        del os.environ[native.PURE_VARIABLE]
        if kept is not None:
            os.environ[native.PURE_VARIABLE] = kept


def _needs_twin() -> None:
    find_program("as", "binutils")
    if compiled.load() is None:
        raise Missing(f"the compiled page walk is missing: {compiled.describe()}")


WALKS = Pair(lambda: _fills(pure=False), lambda: _fills(pure=True), _needs_twin)


# -- hooks -------------------------------------------------------------------------------------------------------------


class _Answers:
    @hookimpl
    def translate(self, cpu: object, address: int, access: int) -> int:
        return address


def _calls(function: Callable[[None, int, int], int]) -> float:
    def work() -> None:
        for address in range(_CALLS):
            function(None, address, 1)

    return _timed(work)


def _bound() -> float:
    manager: pluggy.PluginManager = load_plugins()
    manager.register(_Answers())
    for plugin in manager.get_plugins():
        if not isinstance(plugin, _Answers):
            manager.unregister(plugin)
    function = bind_first(manager, "translate")
    assert function is not None
    return _calls(function)


BOUND_HOOK = Pair(_bound, lambda: _calls(_Answers().translate))
