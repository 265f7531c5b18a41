"""The compiled fill callback: what it does is what Python's does, and nothing needs it."""

from __future__ import annotations

import ctypes
from typing import Any

import attrs
import compiled_walk
import pytest
from long_guest import long_guest, remap
from machines import machine_with

from sevplug import native
from sevplug.core import result
from sevplug.core.config import ObjectSpec
from sevplug.core.engine import compiled
from sevplug.core.engine.compiled import structures
from sevplug.core.errors import EngineError
from sevplug.core.hookspecs import hookimpl
from sevplug.plugins.sev import SevPlugin

PAGE, ALIAS = 0x200000, 0x201000
SEV = ObjectSpec("sev-emulated", "sev0", {"cbitpos": "47", "reduced-phys-bits": "1"})
PLAIN = attrs.evolve(SEV, properties={**SEV.properties, "encrypt-memory": "off"})


@pytest.fixture
def built() -> None:
    compiled_walk.library()


def live(code: str, monkeypatch: pytest.MonkeyPatch, *, pure: bool, spec: ObjectSpec = SEV) -> dict[str, Any]:
    """Run a guest; everything that its pages and its fills have come to."""
    monkeypatch.setenv(native.PURE_VARIABLE, "1" if pure else "0")
    with machine_with(long_guest(code), SevPlugin(), objects=(spec,), machine_options={}) as (machine, board):
        assert machine.engine.page_walk == ("python" if pure else "compiled")
        run = machine.run(timeout=20)
        assert run.result == result.SHUTDOWN
        forms = machine.memory.ranges[0].forms
        return {
            "reports": [value for _port, _size, value in board.board.written],
            "ram": machine.memory.ram_digest(),
            "counters": machine.engine.count(),
            "states": None if forms is None else bytes(forms.states),
            "conversions": None if forms is None else forms.conversions,
        }


# Pages from 2 MiB on are stored to and loaded from, some through the other view, and code is run there.
BUSY = f"""
    mov edi, {PAGE:#x}; mov ecx, 200
1:  mov [rdi], edi; add edi, 0x1000; mov eax, [rdi + 0x1000]; loop 1b
    mov dword ptr [{PAGE:#x}], 0xc3c3c3c3; mov eax, {PAGE:#x}; call rax
    {remap(ALIAS, 0x203000, private=False)} mov eax, [{ALIAS:#x}]; mov [{ALIAS + 8:#x}], eax
    {remap(ALIAS, 0x203000, private=True)} mov eax, [{ALIAS:#x}]; out 0x80, eax; call rbx
"""


@pytest.mark.parametrize("spec", [SEV, PLAIN], ids=["encrypted", "plain"])
def test_a_guest_leaves_the_same_behind_by_both(built: None, monkeypatch: pytest.MonkeyPatch, spec: ObjectSpec) -> None:
    code = f"mov ebx, {PAGE:#x}; {BUSY}"
    seen = [live(code, monkeypatch, pure=pure, spec=spec) for pure in (False, True)]
    assert seen[0] == seen[1]
    assert seen[0]["counters"]["fills"] > 400


def test_what_happens_all_the_time_takes_no_python(built: None, monkeypatch: pytest.MonkeyPatch) -> None:
    touch = f"mov edi, {PAGE:#x}; mov ecx, 400; 1: mov [rdi], edi; add edi, 0x1000; loop 1b"
    monkeypatch.setenv(native.PURE_VARIABLE, "0")
    with machine_with(long_guest(touch), SevPlugin(), objects=(SEV,), machine_options={}) as (machine, _board):
        machine.run(timeout=20)
        by_python = machine.engine._fills._count
        assert machine.engine.count()["fills"] - by_python >= 400
        assert by_python < 60


def test_a_plug_in_that_sees_each_address_is_asked_by_python(built: None, monkeypatch: pytest.MonkeyPatch) -> None:
    class Watching:
        name = "watching"
        seen = 0

        @hookimpl
        def translate(self, cpu: object, address: int, access: int) -> None:
            Watching.seen += 1

    monkeypatch.setenv(native.PURE_VARIABLE, "0")
    with machine_with(long_guest(""), SevPlugin(), Watching(), objects=(SEV,), machine_options={}) as (machine, _board):
        assert machine.engine.page_walk == "python"
        assert machine.run(timeout=20).result == result.SHUTDOWN
    assert Watching.seen > 10


@pytest.mark.parametrize("name", ["Fills", "Exits"])
def test_a_library_of_other_sources_is_refused_in_a_line(
    built: None, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    class Other(ctypes.Structure):
        _fields_ = (("more", ctypes.c_uint64 * 99),)

    monkeypatch.setenv(native.PURE_VARIABLE, "0")
    monkeypatch.setattr(structures, name, Other)
    compiled._load.cache_clear()
    try:
        with pytest.raises(EngineError) as refused:
            compiled.load()
    finally:
        compiled._load.cache_clear()
    assert str(refused.value).endswith("was built from other sources; install sevplug again, or set SEVPLUG_PURE=1")


@pytest.mark.parametrize(
    ("pure", "says"), [("0", "compiled"), ("", "compiled"), ("1", "python (SEVPLUG_PURE is set)")], ids=str
)
def test_one_can_see_which_is_in_use(built: None, monkeypatch: pytest.MonkeyPatch, pure: str, says: str) -> None:
    monkeypatch.setenv(native.PURE_VARIABLE, pure)
    assert compiled.describe() == says
    monkeypatch.setattr(compiled, "_load", lambda: None)
    assert compiled.describe().startswith("python (")
