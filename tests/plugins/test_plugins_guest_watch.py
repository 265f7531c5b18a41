"""Ends that have a name: a kernel panic on the serial port, and a guest that asks to be terminated."""

from __future__ import annotations

from typing import Any

import pytest
from machines import machine_with, run_guest

from sevplug.core import events, result
from sevplug.plugins import pc_board
from sevplug.plugins.ghcb_termination import describe_termination
from sevplug.plugins.guest_watch import GuestWatchPlugin
from sevplug.plugins.sev import SevPlugin

# What Linux prints, abridged; the second form says that nothing more will come.
PANIC = "[    0.4] Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)\r\n"
LAST = "[    0.4] ---[ end Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0) ]---\r\n"
TEXT = "Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)"


def say(text: str, then: str) -> str:
    """A guest that sends ``text`` to the serial port, then runs ``then``."""
    return f"""
        mov dx, 0x3f8; mov si, offset text - _start; mov cx, offset end - text
        9: mov al, cs:[si]; out dx, al; inc si; loop 9b
        {then}
        text: .ascii "{text.encode("unicode_escape").decode()}"
        end:
    """


def watched(text: str, then: str, **config: Any) -> result.RunResult:
    return run_guest(say(text, then), plugins=[pc_board, GuestWatchPlugin()], **config).result


def test_a_kernel_that_panicked_for_good_ends_the_run() -> None:
    ended = watched(PANIC + LAST, "1: pause; jmp 1b", timeout=20)
    assert (ended.result, ended.detail, ended.orderly) == (result.PANIC, TEXT, False)


@pytest.mark.parametrize("then", ["mov al, 0xfe; out 0x64, al; jmp .", "cli; hlt"], ids=["it restarts", "it halts"])
def test_a_panic_explains_what_it_led_to(then: str) -> None:
    ended = watched(PANIC, then, timeout=20)
    assert (ended.result, ended.detail) == (result.PANIC, TEXT)


@pytest.mark.parametrize(("mib", "hint"), [(1, True), (48, True), (64, False)])
def test_firmware_that_gave_up_with_little_memory_gets_a_hint(mib: int, hint: bool) -> None:
    # Whatever name its end has got from others.
    ended = run_guest("cli; hlt", ram=mib << 20, plugins=[pc_board, GuestWatchPlugin(), SevPlugin()]).result
    assert ended.result == result.HALTED
    assert ended.detail.startswith("halted with interrupts off at rip ")
    assert ended.detail.endswith(f" ({mib << 20} bytes of memory may be too little for firmware guest)") is hint


def test_an_end_in_order_gets_no_hint() -> None:
    assert watched("", "mov dx, 0xf4; out dx, al; hlt", ram=1 << 20).detail == "port 0xf4 got 244"


def test_a_guest_that_switched_itself_off_after_a_panic_ended_in_order() -> None:
    assert watched(PANIC, "out 0xf4, al; hlt").result == result.SHUTDOWN


def test_talk_of_panic_is_no_panic() -> None:
    assert watched("Kernel panic is not what this is\r\npanic=1\r\n", "cli; hlt").result == result.HALTED


def test_a_panic_is_forgotten_when_the_machine_starts_over() -> None:
    watch = GuestWatchPlugin()
    with machine_with(b"\xf4" * 0x1000, pc_board, watch, reboot=True) as (machine, _board):
        serial: Any = machine.private["serial"]
        for byte in PANIC.encode():
            serial._write(0x3F8, 1, byte)
        serial.flush()
        assert watch.guest_exit(result.End(result.HALTED, "")) == result.End(result.PANIC, TEXT)
        machine.notify(events.GUEST_RESET, guest=True, reason="guest-reset")
        assert watch.guest_exit(result.End(result.HALTED, "")) is None


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0x100, "GHCB termination request, reason 0:0x0 (no reason given)"),
        (0x1_0100, "GHCB termination request, reason 0:0x1 (the GHCB protocol versions do not meet)"),
        (0x2_1100, "GHCB termination request, reason 1:0x2 (PVALIDATE failed)"),
        (0xEE_F100, "GHCB termination request, reason 15:0xee"),
        (0x002, None),
        (0x1_0101, None),
    ],
)
def test_a_termination_request_in_words(value: int, words: str | None) -> None:
    assert describe_termination(value) == words


def test_a_guest_that_asks_for_its_termination_gets_it() -> None:
    code = "mov ecx, 0xc0010130; xor edx, edx; mov eax, 0x10100; wrmsr; 1: jmp 1b"
    ended = run_guest(code, plugins=[SevPlugin()]).result
    assert ended.result == result.TERMINATED
    assert ended.detail == "GHCB termination request, reason 0:0x1 (the GHCB protocol versions do not meet)"
    assert not ended.orderly


def test_any_other_use_of_the_ghcb_register_is_a_general_protection_fault() -> None:
    code = "lidt cs:[empty - _start]; mov ecx, 0xc0010130; xor edx, edx; mov eax, 2; wrmsr; empty: .word 0; .long 0"
    assert run_guest(code, plugins=[SevPlugin()]).result.result == result.FAULT


def test_a_guest_that_halts_at_once_may_have_found_sev_wrong() -> None:
    ended = run_guest("cli; hlt", plugins=[SevPlugin()]).result
    assert ended.result == result.HALTED
    assert "before its first interrupt" in ended.detail
    assert "before its first interrupt" not in run_guest("cli; hlt").result.detail
