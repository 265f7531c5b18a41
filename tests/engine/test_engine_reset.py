"""The state a guest starts from: at power-on, and again after a reset in the middle of whatever it did."""

from __future__ import annotations

from assembler import assemble
from guests import long64, protected32
from machines import GuestRun, machine_with, run_guest
from reference_cpu import DebugConsolePlugin, run_here

from sevplug.core.bus import Device
from sevplug.core.hookspecs import hookimpl
from sevplug.core.machine import Machine

# Reports the CPU's state after a reset in 32-bit numbers, and ends; the first time it spoils all of it and resets.
STATE = """
    .macro say
    out 0xe9, al
    ror eax, 8
    out 0xe9, al
    ror eax, 8
    out 0xe9, al
    ror eax, 8
    out 0xe9, al
    ror eax, 8
    .endm
    .macro msr index
    mov ecx, \\index
    rdmsr
    say
    mov eax, edx
    say
    .endm
    mov esp, eax
    mov eax, edx
    say
    mov eax, esp
    say
    mov eax, ebx
    say
    mov eax, ecx
    say
    mov eax, esi
    say
    mov eax, edi
    say
    mov eax, ebp
    say
    mov eax, cr0
    say
    mov eax, cr2
    say
    mov eax, cr3
    say
    mov eax, cr4
    say
    mov eax, dr0
    say
    mov eax, dr6
    say
    mov eax, dr7
    say
    mov esp, 0x8000
    pushfd
    pop eax
    say
    mov ax, cs
    say
    mov ax, ds
    say
    mov ax, ss
    say
    mov ax, fs
    say
    sidt [0x600]
    mov eax, [0x600]
    say
    sgdt [0x600]
    mov eax, [0x600]
    say
    fnstcw [0x600]
    mov ax, [0x600]
    say
    fnstsw ax
    say
    mov eax, cr4
    or eax, 0x600
    mov cr4, eax
    stmxcsr [0x600]
    mov eax, [0x600]
    say
    movd eax, xmm5
    say
    msr 0xc0000080
    msr 0xc0000081
    msr 0xc0000082
    msr 0xc0000084
    msr 0xc0000100
    msr 0xc0000101
    msr 0xc0000102
    msr 0xc0000103
    msr 0x174
    msr 0x175
    msr 0x277
    msr 0x200
    msr 0x250
    msr 0x2ff
    cmp dword ptr [0x700], 0x1234
    je done
    mov dword ptr [0x700], 0x1234
    jmp spoil
done: out 0xf4, al
    hlt
"""
SPOIL = """
    .macro set_msr index, value
    mov ecx, \\index
    mov eax, \\value
    mov edx, 0
    wrmsr
    .endm
spoil:
    fninit
    fldpi
    mov word ptr [0x600], 0x27f
    fldcw [0x600]
    mov dword ptr [0x600], 0x9f80
    ldmxcsr [0x600]
    mov eax, 0x5555
    movd xmm5, eax
    set_msr 0xc0000081, 0x1111
    set_msr 0xc0000082, 0x2222
    set_msr 0xc0000084, 0x3333
    set_msr 0xc0000100, 0x4444
    set_msr 0xc0000101, 0x5555
    set_msr 0xc0000102, 0x6666
    set_msr 0xc0000103, 7
    set_msr 0x174, 8
    set_msr 0x175, 0x9999
    set_msr 0x277, 0x6060606
    set_msr 0x200, 6
    set_msr 0x250, 0x6060606
    set_msr 0x2ff, 0xc06
    mov eax, 0x1234
    mov dr0, eax
    mov eax, 0x401
    mov dr7, eax
    std
    .byte 0x66
    lidt [0x620]
    data32 lgdt cs:[gdtr - _start]
    mov eax, cr0
    or al, 1
    mov cr0, eax
    .att_syntax
    ljmpl $8, $pm
    .intel_syntax noprefix
gdtr: .word 31
    .long gdt
    .balign 8
gdt: .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff, 0x00af9b000000ffff
    .code32
pm: mov ax, 16
    mov ds, ax
    mov ss, ax
    mov fs, ax
    mov dword ptr [0x1000], 0x2003
    mov dword ptr [0x2000], 0x83
    mov dword ptr [0x2018], 0xc0000083
    mov eax, 0x1000
    mov cr3, eax
    mov eax, 0x6a0
    mov cr4, eax
    mov ecx, 0xc0000080
    mov eax, 0x901
    xor edx, edx
    wrmsr
    mov dword ptr [0x1000], 0x2003
    mov eax, 0x80000001
    mov cr0, eax
    .att_syntax
    ljmpl $24, $lm
    .intel_syntax noprefix
    .code64
lm: mov r9, 0x1234567890
    mov rsi, r9
    mov rax, 0xdeadbeef
    mov cr2, rax
    sti
    out 0x71, al
1:  jmp 1b
"""


class ResetPort(Device):
    """A store to port 0x71 asks for a reset, as a keyboard controller does."""

    def attach(self, machine: Machine) -> None:
        machine.bus.claim_ports(0x71, 1, None, lambda *_access: machine.reset_request("port 0x71"), "reset")


class ResetPlugin:
    """Brings the port."""

    name = "reset-port"

    @hookimpl
    def add_devices(self, machine: Machine) -> None:
        machine.add_device(ResetPort())


def said_twice() -> tuple[list[int], list[int]]:
    """The state at power-on and after the reset."""
    console = DebugConsolePlugin()
    with machine_with(assemble(STATE + SPOIL), console, ResetPlugin(), reboot=True) as (machine, _board):
        run = machine.run(timeout=5)
    assert run.result == "shutdown", run
    data = bytes(console.console.data)
    words = [int.from_bytes(data[at : at + 4], "little") for at in range(0, len(data), 4)]
    return words[: len(words) // 2], words[len(words) // 2 :]


def test_a_reset_brings_back_the_state_of_power_on() -> None:
    first, second = said_twice()
    assert second == first
    edx, *general = first[:7]
    assert edx == 0x00A00F11  # the model's signature
    assert general == [0] * 6
    assert first[7:11] == [0x60000010, 0, 0, 0]  # CR0, CR2, CR3, CR4
    assert first[11:15] == [0, 0xFFFF0FF0, 0x400, 2]  # DR0, DR6, DR7, RFLAGS


def test_the_floating_point_units_start_as_the_architecture_says() -> None:
    first, _second = said_twice()
    control, _status, mxcsr = first[21:24]
    assert control & 0xFFFF == 0x37F
    assert mxcsr == 0x1F80


def test_a_reset_without_reboot_ends_the_run() -> None:
    run = run_guest("out 0x71, al; hlt", plugins=[ResetPlugin()])
    assert isinstance(run, GuestRun)
    assert run.result.result == "reset"


def test_ram_survives_a_reset_and_the_firmware_is_restored() -> None:
    code = """cmp dword ptr [0x700], 1; je 2f; mov dword ptr [0x700], 1; push cs; pop ds
        mov byte ptr [9f - _start], 0x99; out 0x71, al; 1: jmp 1b
    2:  mov al, cs:[9f - _start]; out 0x80, al; mov al, [0x700]; out 0x80, al; out 0xf4, al; hlt
    9:  .byte 0x42"""
    assert run_guest(code, plugins=[ResetPlugin()], reboot=True).ports_written == [0x42, 1]


def test_breakpoints_of_before_are_gone_after_a_reset() -> None:
    code = """cmp dword ptr [0x700], 1; je 2f; mov dword ptr [0x700], 1; mov eax, offset 9f - _start + 0xffff0000
        mov dr0, eax; mov eax, 1; mov dr7, eax; out 0x71, al; 1: jmp 1b
    2:  nop; 9: nop; mov al, 0x55; out 0x80, al; out 0xf4, al; hlt"""
    assert run_guest(code, plugins=[ResetPlugin()], reboot=True).ports_written == [0x55]


def test_a_second_machine_starts_as_clean_as_the_first() -> None:
    spoil = "mov ecx, 0xc0000082; mov eax, 5; wrmsr; mov eax, 0x1000; mov dr0, eax"
    run_here(protected32(spoil))
    report = run_here(long64("mov ecx, 0xc0000082; rdmsr; call emit; mov rax, dr0; call emit")).reports[0]
    assert report.split()[:2] == ["00000000", "00000000"]
