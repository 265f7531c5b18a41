"""A debugger and small guests: what it sees, changes and is told."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from assembler import BASE, assemble
from debugging import mark, place
from guests import long64, protected32, real16
from long_guest import C_BIT, PAGES, long_guest, remap
from remote_debugger import Debugged, Debugger, debugged
from sev_guests import sev_object

from sevplug.core import events, result
from sevplug.core.errors import LaunchRefused
from sevplug.core.hookspecs import hookimpl
from sevplug.plugins import secret_injection
from sevplug.plugins.gdb.registers import REGISTERS
from sevplug.plugins.measurement import MeasurementPlugin
from sevplug.plugins.sev import SevPlugin

NUMBER = {register.name: number for number, register in enumerate(REGISTERS)}
MODES = {"real16": (real16, 0xF0000), "protected32": (protected32, BASE), "long64": (long64, BASE)}
LOOP = "1: inc dword ptr [0x4000]; cmp byte ptr [0x4008], 0; je 1b"
STOP = b"T05thread:01;"


def to(debugger: Debugger, address: int, kind: bytes = b"0") -> None:
    """Go on to ``address``."""
    assert debugger.ask(b"Z%s,%x,1" % (kind, address)) == b"OK"
    assert debugger.ask(b"vCont;c").startswith(STOP)
    assert debugger.ask(b"z%s,%x,1" % (kind, address)) == b"OK"


def until_it_runs(guest: Debugged) -> None:
    """The loop's counter moves."""
    deadline = time.monotonic() + 10
    before = guest.on_machine(lambda: guest.machine.memory.read(0x4000, 4))
    while guest.on_machine(lambda: guest.machine.memory.read(0x4000, 4)) == before:
        assert time.monotonic() < deadline


def end_loop(guest: Debugged) -> str:
    guest.on_machine(lambda: guest.machine.memory.write(0x4008, b"\1"))
    return guest.finish()


# -- breakpoints, steps, registers, memory ---------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("kind", "word"), [(b"0", b"swbreak:;"), (b"1", b"hwbreak:;")])
def test_a_guest_that_waits_is_let_run_to_a_breakpoint(mode: str, kind: bytes, word: bytes, tmp_path: Path) -> None:
    guest, base = MODES[mode]
    image = assemble(guest(f"mov al, 1; out 0x80, al; {mark(1)}; mov al, 2; out 0x80, al"))
    with debugged(image, tmp_path) as waiting, waiting.debugger() as debugger:
        assert debugger.ask(b"?") == STOP
        assert debugger.rip == 0xFFF0
        assert debugger.ask(b"Z%s,%x,1" % (kind, place(image, 1, base))) == b"OK"
        # In real mode GDB does not find its breakpoint at the offset that RIP is.
        assert debugger.ask(b"c") == STOP + (b"" if mode == "real16" else word)
        assert waiting.written == [1]
        # As in QEMU, RIP is the offset in the code segment.
        assert debugger.rip + debugger.register(NUMBER["cs_base"]) == place(image, 1, base)
        assert debugger.ask(b"D") == b"OK"
        assert waiting.finish() == result.SHUTDOWN
        assert waiting.written == [1, 2]


def test_registers_and_memory_are_read_and_written(tmp_path: Path) -> None:
    probe = f"mov rax, 0x1122334455667788; {mark(1)}; mov [0x4000], rax; movups [0x4010], xmm3; {mark(2)}"
    enable = "mov rax, cr4; or eax, 0x200; mov cr4, rax;"
    image = assemble(long64(enable + probe))
    with debugged(image, tmp_path) as guest, guest.debugger() as debugger:
        to(debugger, place(image, 1))
        assert debugger.register(0) == 0x1122334455667788
        assert debugger.ask(b"P0=%s" % bytes(range(8)).hex().encode()) == b"OK"
        assert debugger.ask(b"P%x=%s" % (NUMBER["xmm3"], bytes(range(16)).hex().encode())) == b"OK"
        to(debugger, place(image, 2))
        assert debugger.memory(0x4000, 8) == bytes(range(8))
        assert debugger.memory(0x4010, 16) == bytes(range(16))
        assert debugger.ask(b"M4000,3:a1b2c3") == b"OK"
        assert debugger.ask(b"X4003,2:\x00}\x03") == b"OK"
        assert debugger.memory(0x4000, 5) == bytes([0xA1, 0xB2, 0xC3, 0, 0x23])
        assert debugger.ask(b"X4000,0:") == b"OK"


def test_all_registers_at_once(tmp_path: Path) -> None:
    image = assemble(long64(f"mov r15, 7; {mark(1)}; nop"))
    with debugged(image, tmp_path) as guest, guest.debugger() as debugger:
        to(debugger, place(image, 1))
        everything = debugger.ask(b"g")
        one_by_one = b"".join(debugger.ask(b"p%x" % number) for number in range(len(REGISTERS)))
        assert everything == one_by_one
        changed = bytes.fromhex(everything.decode())[:120] + (9).to_bytes(8, "little")
        rest = bytes.fromhex(everything.decode())[128:]
        assert debugger.ask(b"G" + (changed + rest).hex().encode()) == b"OK"
        assert debugger.register(NUMBER["r15"]) == 9


def test_a_selector_moves_its_base_in_real_mode_and_is_refused_elsewhere(tmp_path: Path) -> None:
    image = assemble(long64(f"{mark(1)}; nop"))
    with debugged(image, tmp_path) as guest, guest.debugger() as debugger:
        assert debugger.ask(b"P%x=00b80000" % NUMBER["ds"]) == b"OK"
        assert debugger.register(NUMBER["ds_base"]) == 0xB8000
        to(debugger, place(image, 1))
        same = debugger.ask(b"p%x" % NUMBER["ds"])
        assert debugger.ask(b"P%x=%s" % (NUMBER["ds"], same)) == b"OK"
        assert debugger.ask(b"P%x=00b80000" % NUMBER["ds"]) == b"E16"
        assert debugger.ask(b"P%x=0000000000000000" % NUMBER["efer"]) == b"E16"


def test_sixteen_bit_code_has_short_registers(tmp_path: Path) -> None:
    """What QEMU's server makes of them."""
    with debugged(assemble(real16("nop")), tmp_path) as guest, guest.debugger() as debugger:
        guest.on_machine(lambda: guest.machine.cpu.set("rbx", 0x1_0000_0002))
        guest.on_machine(lambda: guest.machine.cpu.set("r9", 5))
        assert debugger.register(NUMBER["rbx"]) == 2
        assert debugger.register(NUMBER["r9"]) == 0
        assert debugger.ask(b"P%x=0300000000000000" % NUMBER["rbx"]) == b"OK"
        assert guest.on_machine(lambda: guest.machine.cpu.get("rbx")) == 0x1_0000_0003


@pytest.mark.parametrize("packet", [b"s", b"S05", b"vCont;s:1", b"vCont;s", b"vCont;s:p1.1;c"])
def test_a_step_is_one_instruction(packet: bytes, tmp_path: Path) -> None:
    image = assemble(long64(f"{mark(1)}; inc ecx; nop"))
    with debugged(image, tmp_path) as guest, guest.debugger() as debugger:
        to(debugger, place(image, 1))
        assert debugger.ask(packet) == STOP
        assert debugger.rip == place(image, 1) + 4
        assert debugger.ask(packet) == STOP
        assert debugger.rip == place(image, 1) + 6


@pytest.mark.parametrize("packet", [b"c%x", b"C05;%x"])
def test_the_guest_goes_on_elsewhere(packet: bytes, tmp_path: Path) -> None:
    image = assemble(long64(f"{mark(1)}; mov al, 1; out 0x80, al; {mark(2)}; nop"))
    with debugged(image, tmp_path) as guest, guest.debugger() as debugger:
        to(debugger, place(image, 1))
        debugger.start(packet % place(image, 2))
        assert debugger.packet().startswith(b"O")
        assert debugger.packet() == b"W00"
        assert guest.written == []


def test_a_breakpoint_is_one_however_often_it_is_set(tmp_path: Path) -> None:
    image = assemble(long64(f"mov ecx, 3; 1: {mark(1)}; loop 1b"))
    with debugged(image, tmp_path) as guest, guest.debugger() as debugger:
        for packet in (b"Z0,%x,1", b"Z0,%x,1", b"Z1,%x,1"):
            assert debugger.ask(packet % place(image, 1)) == b"OK"
        assert debugger.ask(b"c") == STOP + b"swbreak:;"
        assert debugger.ask(b"z0,%x,1" % place(image, 1)) == b"OK"
        assert debugger.ask(b"c") == STOP + b"hwbreak:;"
        assert debugger.ask(b"z1,%x,1" % place(image, 1)) == b"OK"
        debugger.start(b"c")
        assert debugger.packet()[:1] + debugger.packet() == b"OW00"


@pytest.mark.parametrize("kind", [2, 3, 4])
def test_watchpoints_are_not_known(kind: int, tmp_path: Path) -> None:
    with debugged(assemble(real16("nop")), tmp_path) as guest, guest.debugger() as debugger:
        assert debugger.ask(b"Z%d,4000,4" % kind) == b""
        assert debugger.ask(b"z%d,4000,4" % kind) == b""


# -- a SEV guest -----------------------------------------------------------------------------------------------------


def test_memory_is_that_of_the_guests_own_view(tmp_path: Path) -> None:
    private, shared = PAGES + 0x6000, PAGES + 0x7000
    code = f"""
    {remap(shared, shared, private=False)}
    mov dword ptr [{private:#x}], 0x11111111; mov dword ptr [{shared:#x}], 0x22222222
    {mark(1)}
    mov eax, [{private:#x}]; mov ebx, [{shared:#x}]
    {mark(2)}
"""
    image = long_guest(code)
    sev = (SevPlugin(), MeasurementPlugin(), secret_injection)
    objects = (sev_object(cbitpos=str(C_BIT), policy="0x1"),)
    with debugged(image, tmp_path, *sev, objects=objects) as guest, guest.debugger() as debugger:
        to(debugger, place(image, 1))
        assert debugger.memory(private, 4) == b"\x11" * 4
        assert debugger.memory(shared, 4) == b"\x22" * 4
        assert debugger.ask(b"M%x,4:aabbccdd" % private) == b"OK"
        assert debugger.ask(b"M%x,4:11223344" % shared) == b"OK"
        dumped = guest.on_machine(lambda: guest.machine.memory.read(private, 4, dma=False))
        assert dumped != bytes.fromhex("aabbccdd")
        to(debugger, place(image, 2))
        assert debugger.register(NUMBER["rax"]) == 0xDDCCBBAA
        assert debugger.register(NUMBER["rbx"]) == 0x44332211
        page = b"page 0x%x" % private
        told = bytes.fromhex(debugger.ask(b"qRcmd," + page.hex().encode()).decode()).decode()
        assert told == f"linear {private:#x} is guest-physical {private:#x}, private, ram\n"
        told = bytes.fromhex(debugger.ask(b"qRcmd," + b"sev".hex().encode()).decode()).decode()
        assert "state: running" in told
        warnings = [fields["text"] for name, fields in guest.board.events if name == events.WARNING]
        assert len([text for text in warnings if "NODBG" in text]) == 1


def test_a_policy_that_allows_debugging_is_no_reason_to_warn(tmp_path: Path) -> None:
    sev = (SevPlugin(), MeasurementPlugin(), secret_injection)
    objects = (sev_object(policy="0x0"),)
    with debugged(assemble(real16("nop")), tmp_path, *sev, objects=objects) as guest, guest.debugger():
        assert not [fields for name, fields in guest.board.events if "NODBG" in str(fields.get("text"))]


class Refuses:
    """A plug-in that lets no guest begin."""

    name = "refuses"

    @hookimpl
    def finish(self) -> None:
        raise LaunchRefused("the launch is refused: by this test")


def test_a_launch_that_cannot_be_finished_is_a_failure_of_its_continue(tmp_path: Path) -> None:
    sev = (SevPlugin(), MeasurementPlugin(), secret_injection, Refuses())
    with debugged(assemble(real16("nop")), tmp_path, *sev, objects=(sev_object(),)) as guest:
        with guest.debugger() as debugger:
            for packet in (b"c", b"s", b"D"):
                assert debugger.ask(packet) == b"E.the launch is refused: by this test"
            assert debugger.ask(b"?") == STOP
        assert guest.on_machine(lambda: guest.machine.status) == "prelaunch"


# -- running guests, and others who control them ---------------------------------------------------------------------


def test_a_running_guest_is_stopped_when_a_debugger_speaks_and_goes_on_when_it_leaves(tmp_path: Path) -> None:
    with debugged(assemble(long64(LOOP)), tmp_path, paused=False) as guest:
        until_it_runs(guest)
        with guest.debugger() as debugger:
            assert guest.on_machine(lambda: guest.machine.status) == "paused"
            before = debugger.memory(0x4000, 4)
            assert debugger.memory(0x4000, 4) == before
            assert debugger.ask(b"D;1") == b"OK"
            until_it_runs(guest)
        assert end_loop(guest) == result.SHUTDOWN


def test_a_connection_that_says_nothing_stops_nothing(tmp_path: Path) -> None:
    with debugged(assemble(long64(LOOP)), tmp_path, paused=False) as guest, guest.debugger(no_ack=False) as debugger:
        debugger.send(b"+GET / HTTP/1.0\r\n\r\n")
        until_it_runs(guest)
        assert end_loop(guest) == result.SHUTDOWN


def test_ctrl_c_stops_a_running_guest(tmp_path: Path) -> None:
    with debugged(assemble(long64(LOOP)), tmp_path) as guest, guest.debugger() as debugger:
        for packet in (b"c", b"vCont;c:1"):
            debugger.start(packet)
            until_it_runs(guest)
            assert debugger.interrupt() == b"T02thread:01;"
        debugger.send(b"\x03")  # it stands already
        assert debugger.ask(b"qC") == b"QC1"


def test_ctrl_c_ends_the_step_of_a_guest_that_sleeps(tmp_path: Path) -> None:
    image = assemble(protected32(f"{mark(1)}; sti; hlt; nop"))
    with debugged(image, tmp_path) as guest, guest.debugger() as debugger:
        to(debugger, place(image, 1))
        for _ in range(3):
            assert debugger.ask(b"s") == STOP
        debugger.start(b"s")
        time.sleep(0.1)
        assert debugger.interrupt() == b"T02thread:01;"
        assert debugger.ask(b"c%x" % (debugger.rip))[:1] == b"O"  # it goes on there, awake
        assert debugger.packet() == b"W00"


@pytest.mark.parametrize("when", ["it stands", "it runs", "within a packet", "within a step"])
def test_a_guest_goes_on_when_its_debugger_vanishes(when: str, tmp_path: Path) -> None:
    image = assemble(long64(f"{mark(1)}; {LOOP}"))
    with debugged(image, tmp_path) as guest:
        with guest.debugger() as debugger:
            to(debugger, place(image, 1))
            assert debugger.ask(b"Z0,%x,1" % (place(image, 1) + 4)) == b"OK"
            if when == "it runs":
                assert debugger.ask(b"z0,%x,1" % (place(image, 1) + 4)) == b"OK"
                debugger.start(b"c")
            elif when == "within a packet":
                debugger.send(b"$m1000,")
            elif when == "within a step":
                debugger.start(b"s")
        until_it_runs(guest)
        assert not guest.on_machine(lambda: len(guest.machine.debug.breakpoints))
        assert end_loop(guest) == result.SHUTDOWN


def test_a_guest_that_waits_at_its_start_goes_on_waiting_when_its_debugger_vanishes(tmp_path: Path) -> None:
    with debugged(assemble(real16("nop")), tmp_path) as guest:
        with guest.debugger() as debugger:
            assert debugger.ask(b"?") == STOP
        with guest.next_debugger() as debugger:
            assert debugger.rip == 0xFFF0
            assert guest.on_machine(lambda: guest.machine.status) == "prelaunch"
            debugger.start(b"c")
            assert debugger.packet()[:1] + debugger.packet() == b"OW00"


def test_a_stop_by_somebody_else_is_told_and_so_is_the_end(tmp_path: Path) -> None:
    with debugged(assemble(long64(LOOP)), tmp_path) as guest, guest.debugger() as debugger:
        debugger.start(b"c")
        until_it_runs(guest)
        guest.on_machine(guest.machine.pause)
        assert debugger.packet() == b"T02thread:01;"
        debugger.start(b"c")
        until_it_runs(guest)
        guest.on_machine(guest.machine.quit)
        assert (
            bytes.fromhex(debugger.packet()[1:].decode()) == b"sevplug: the guest has ended: quit, ended from outside\n"
        )
        assert debugger.packet() == b"W00"
        assert debugger.packet() == b""


def test_a_bad_end_has_another_status(tmp_path: Path) -> None:
    with debugged(assemble(real16("cli; hlt")), tmp_path) as guest, guest.debugger() as debugger:
        assert debugger.ask(b"c").startswith(b"O")
        assert debugger.packet() == b"W01"
        assert guest.finish() == result.HALTED


def test_a_guest_that_another_lets_run_is_stopped_for_a_step(tmp_path: Path) -> None:
    with debugged(assemble(long64(LOOP)), tmp_path) as guest, guest.debugger() as debugger:
        debugger.ask(b"?")
        guest.on_machine(guest.machine.resume)
        until_it_runs(guest)
        assert debugger.ask(b"s") == STOP
        assert guest.on_machine(lambda: guest.machine.status) == "debug"


def test_kill_ends_the_run(tmp_path: Path) -> None:
    with debugged(assemble(long64(LOOP)), tmp_path) as guest, guest.debugger() as debugger:
        debugger.start(b"k")
        assert debugger.packet() == b""
        assert guest.finish() == result.QUIT


def test_a_guest_that_starts_over_keeps_its_breakpoints(tmp_path: Path) -> None:
    image = assemble(real16(f"{mark(1)}; nop; jmp $"))
    with debugged(image, tmp_path) as guest, guest.debugger() as debugger:
        assert debugger.ask(b"Z0,%x,1" % place(image, 1, 0xF0000)) == b"OK"
        assert debugger.ask(b"c") == STOP
        assert debugger.ask(b"qRcmd," + b"system_reset".hex().encode()) == b"OK"
        assert debugger.ask(b"c") == STOP
