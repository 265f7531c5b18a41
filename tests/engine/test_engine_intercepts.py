"""Instructions that a hypervisor traps: who answers, what the guest sees, and where it goes on."""

from __future__ import annotations

import pytest
from guests import long64, protected32, real16
from machines import run_guest
from reference_cpu import run_here

from sevplug.core.engine import opcodes
from sevplug.core.errors import GuestFault
from sevplug.core.hookspecs import hookimpl
from sevplug.core.vcpu import CpuidRegisters, VCpu

UNKNOWN_MSR = 0x12345


class Answers:
    """A plug-in that answers one CPUID leaf and one MSR, and refuses another MSR."""

    name = "answers"

    def __init__(self) -> None:
        self.written: list[tuple[int, int]] = []

    @hookimpl
    def cpuid(self, leaf: int, subleaf: int) -> CpuidRegisters | None:
        return CpuidRegisters(0x11, 0x22, 0x33, subleaf) if leaf == 0x8000001F else None

    @hookimpl
    def rdmsr(self, index: int) -> int | None:
        if index == 0xC0010131:
            return 0x1122334455667788
        if index == 0xC0010130:
            raise GuestFault(17, 0x18)
        return None

    @hookimpl
    def wrmsr(self, index: int, value: int) -> bool | None:
        if index == 0xC0010131:
            self.written.append((index, value))
            return True
        return None


def words(source: str, *plugins: object) -> list[str]:
    return run_here(source, *plugins).reports[0].split()


@pytest.mark.parametrize("prefix", ["", ".byte 0x66;", ".byte 0x48;", ".byte 0x66, 0x48;", ".byte 0xf2, 0x41;"])
@pytest.mark.parametrize("instruction", ["cpuid", "rdtsc", "rdtscp", "rdmsr", "pause"])
def test_an_intercepted_instruction_is_skipped_whole_whatever_its_prefixes(prefix: str, instruction: str) -> None:
    report = words(long64(f"mov ecx, 0x1a0; lea rax, [rip+3f]; call emit; {prefix} {instruction}; 3: ud2"))
    assert report[1] == "00000006"
    assert report[2] == report[0]


@pytest.mark.parametrize(
    "forget",
    [
        "invlpg [0x300000];",
        "invlpg [0x300000]; mov al, [0x300000];",
        "mov rax, cr3; mov cr3, rax;",
        "mov rax, cr4; bts eax, 7; mov cr4, rax; mov rax, cr3; mov cr3, rax;",
        "mov rax, cr4; btc eax, 7; mov cr4, rax;",
    ],
)
def test_an_intercepted_instruction_is_read_where_the_code_is_mapped_now(forget: str) -> None:
    """Two pages take turns at linear 0x300000: a CPUID with two prefixes in one, a bare one in the other, then RET."""
    pages = "mov dword ptr [0x201000], 0xa20f6666; mov byte ptr [0x201004], 0xc3; mov dword ptr [0x202000], 0xccc3a20f;"
    turn = "mov qword ptr [0x16000+8*0x100], {page:#x} | 7; {forget} mov eax, 1; mov ebp, 0x300000; call rbp;"
    turns = "".join(turn.format(page=page, forget=forget) for page in (0x201000, 0x202000, 0x201000, 0x202000))
    report = words(long64(f"{pages} {turns} mov eax, 0x600d; call emit"))
    assert report[0] == "0000600d"


def test_an_intercepted_instruction_at_the_end_of_mapped_code_leaves_cr2_alone() -> None:
    # A single step keeps the engine from reading on into the next page by itself.
    code = """mov qword ptr [0x16000+8*0x100], 0; mov rax, cr3; mov cr3, rax; mov dword ptr [0x2ffffc], 0xa20f6690
        mov eax, 0x1122; mov cr2, rax; push 0x20; push 0x20000; push 0x102; push 0x18; push 0x2ffffd; iretq"""
    vector, rip, *_rest = run_here(long64(code, "mov rax, cr2; call emit")).reports[0].split()
    assert (vector, rip) == ("00000001", "00300000")
    assert run_here(long64(code, "mov rax, cr2; call emit")).reports[1].split()[0] == "00001122"


def test_cpuid_and_msrs_are_answered_by_a_plugin() -> None:
    code = """mov eax, 0x8000001f; mov ecx, 7; cpuid; call emit32; mov eax, ebx; call emit32; mov eax, edx; call emit32
        mov ecx, 0xc0010131; rdmsr; call emit32; mov eax, edx; call emit32; mov eax, 5; mov edx, 6; wrmsr"""
    plugin = Answers()
    report = words(protected32(code), plugin)
    assert report[:5] == ["00000011", "00000022", "00000007", "55667788", "11223344"]
    assert plugin.written == [(0xC0010131, 6 << 32 | 5)]


@pytest.mark.parametrize("mode", [real16, protected32, long64])
@pytest.mark.parametrize("instruction", ["rdmsr", "wrmsr"])
def test_an_unknown_msr_is_a_protection_fault_at_the_instruction(mode: object, instruction: str) -> None:
    assert callable(mode)
    assert words(mode(f"mov ecx, {UNKNOWN_MSR:#x}; {instruction}"))[0] == "0000000d"


def test_a_fault_from_a_hook_is_delivered_with_its_error_code() -> None:
    report = words(long64("mov ecx, 0xc0010130; lea rax, [rip+3f]; call emit; 3: rdmsr"), Answers())
    assert report[1:4] == ["00000011", "00000018", "00000000"]
    assert report[4] == report[0]


def test_an_opcode_that_the_engine_does_not_know_is_emulated_by_a_plugin() -> None:
    class Emulates:
        @hookimpl
        def unknown_opcode(self, cpu: VCpu, code: bytes) -> int | None:
            if code[:4] == b"\xf2\x0f\x01\xff":
                cpu.set("rax", 0x5A5A)
                return 4
            return None

    report = words(long64(".byte 0xf2, 0x0f, 0x01, 0xff; call emit; ud2"), Emulates())
    assert report[:2] == ["00005a5a", "00000006"]


def test_the_intercept_hook_sees_the_exit_code_and_may_handle_it() -> None:
    class Handles:
        def __init__(self) -> None:
            self.seen: list[tuple[int, int]] = []

        @hookimpl
        def intercept(self, cpu: VCpu, code: int, info: int) -> bool | None:
            self.seen.append((code, info))
            if code == 0x81:
                cpu.set("rax", 0x77)
                cpu.set("rip", cpu.rip + 3)
                return True
            return None

    plugin = Handles()
    report = words(protected32("vmmcall; call emit32; mov ecx, 0x1a0; rdmsr; wrmsr; cpuid; rdtsc"), plugin)
    assert report[0] == "00000077"
    assert plugin.seen[:5] == [(0x81, 0), (0x7C, 0), (0x7C, 1), (0x72, 0), (0x6E, 0)]


@pytest.mark.parametrize("instruction", ["vmrun", "vmload", "vmsave", "stgi", "clgi", "skinit", "invlpga"])
def test_the_guest_cannot_switch_the_engines_own_virtualisation_on(instruction: str) -> None:
    code = f"mov ecx, 0xc0000080; rdmsr; or eax, 0x1000; wrmsr; rdmsr; and eax, 0x1000; call emit32; {instruction}"
    assert words(protected32(code))[:2] == ["00000000", "00000006"]


def test_vmmcall_that_nobody_handles_is_an_invalid_opcode() -> None:
    assert words(protected32("vmmcall"))[0] == "00000006"


def test_the_time_stamp_counter_follows_virtual_time_and_can_be_set() -> None:
    code = """rdtsc; mov ebx, eax; mov ecx, 100; 1: in al, 0x80; loop 1b; rdtsc; sub eax, ebx; call emit32
        mov ecx, 0x10; mov eax, 0x1000000; xor edx, edx; wrmsr; rdtsc; and eax, 0xfffe0000; call emit32"""
    elapsed, after, *_rest = words(protected32(code))
    # A microsecond an access and a TSC of 1 GHz.
    assert 100_000 <= int(elapsed, 16) <= 103_000
    assert after == "01000000"


def test_rdtscp_reads_the_processor_number_too() -> None:
    code = "mov ecx, 0xc0000103; mov eax, 7; wrmsr; rdtscp; mov eax, ecx; call emit32"
    assert words(protected32(code))[0] == "00000007"


def test_halting_with_interrupts_off_ends_the_run() -> None:
    run = run_guest("cli; hlt")
    assert run.result.result == "halted"
    assert "interrupts off" in run.result.detail


@pytest.mark.parametrize(
    ("code", "rex", "expected"),
    [
        ("8ed8", False, True), ("668ed8", False, True), ("488ed8", True, True), ("1f", False, True),
        ("0f02c0", False, True), ("0f00e0", False, True), ("0f00c0", False, False), ("ff2f", False, True),
        ("ffe0", False, False), ("48cf", True, True), ("ca0000", False, True), ("8b00", False, False),
        ("488b00", True, False), ("0fb200", False, True), ("0fa2", False, False), ("", False, False),
    ],
)  # fmt: skip
def test_instructions_that_load_a_descriptor_are_recognised(code: str, rex: bool, expected: bool) -> None:
    assert opcodes.loads_descriptor(bytes.fromhex(code), rex=rex) is expected


@pytest.mark.parametrize(
    "instruction",
    ["shlx rax, rbx, rcx", "sarx eax, ebx, ecx", "andn rax, rbx, rcx", "bextr eax, ebx, ecx", "rorx rax, rbx, 5"],
)
def test_bmi_instructions_need_no_osfxsr(instruction: str) -> None:
    setup = "mov rbx, -0x123456789; mov ecx, 0x1105;"
    bare, with_fxsr = (
        words(long64(f"mov rax, cr4; {change} rax, {bit}; mov cr4, rax; {setup} {instruction}; call emit64"))
        for change, bit in (("and", "-0x201"), ("or", "0x200"))
    )
    assert bare[:2] == with_fxsr[:2]
