"""What a guest sees, and which guests are refused."""

from __future__ import annotations

import struct

import pytest
from conftest import MakeMachine
from images import firmware

from sevplug.boot import embedded
from sevplug.core.config import BootImages, Image
from sevplug.core.errors import ConfigError, GuestFault
from sevplug.core.vcpu import CpuidRegisters


def test_a_guest_reads_that_snp_is_active(make_machine: MakeMachine) -> None:
    with make_machine(firmware()) as machine:
        assert machine.run(timeout=10).result == "reset"
        eax, ebx, status = struct.unpack("<III", bytes(machine.private["serial"].output))
    assert eax == 1 << 1 | 1 << 3 | 1 << 4  # SEV, SEV-ES, SEV-SNP
    assert ebx == 51 | 1 << 6
    assert status == 0b111


def test_without_the_plug_in_there_is_neither_leaf_nor_register(make_machine: MakeMachine) -> None:
    with make_machine(firmware(), words=("no:snp-stub",)) as machine:
        assert machine.cpu.cpuid(0x8000001F, 0) == CpuidRegisters(0, 0, 0, 0)
        with pytest.raises(GuestFault):
            machine.cpu.msr_read(0xC0010131)


def test_the_status_is_read_only(make_machine: MakeMachine) -> None:
    with make_machine(firmware()) as machine, pytest.raises(GuestFault) as fault:
        machine.cpu.msr_write(0xC0010131, 7)
    assert (fault.value.vector, fault.value.error_code) == (13, 0)


def test_page_tables_may_carry_the_c_bit(make_machine: MakeMachine) -> None:
    with make_machine(b"", boot=embedded.load()) as machine:
        assert machine.run(timeout=10).result == "shutdown"
        output = bytes(machine.private["serial"].output).decode()
    assert "[ok]   private memory" in output
    assert "[FAIL]" not in output


def test_a_guest_goes_back_to_a_snapshot(make_machine: MakeMachine) -> None:
    with make_machine(firmware()) as machine:
        machine.start_launch()
        snapshot = machine.snapshot()
        first = machine.summary(machine.run(timeout=10))
    with make_machine(firmware()) as other:
        other.restore(snapshot)
        again = other.summary(other.run(timeout=10))
    assert first["snp"] == again["snp"]
    assert first["snp"]["launch_digest"] != "00" * 48


def test_the_user_is_told_that_it_is_a_stub(make_machine: MakeMachine, capsys: pytest.CaptureFixture[str]) -> None:
    with make_machine(firmware()) as machine:
        machine.run(timeout=10)
    assert "no RMP, no VMGEXIT, no security" in capsys.readouterr().err


def test_a_guest_is_not_sev_and_snp_at_once(make_machine: MakeMachine) -> None:
    with pytest.raises(ConfigError, match=r"^plug-ins snp-stub and sev: .*, expected -P no:sev too$"):
        make_machine(firmware(), words=("sev",)).__enter__()


@pytest.mark.parametrize("boot", [BootImages(kernel=Image(bytes(0x1000), "vmlinuz")), BootImages()])
def test_without_firmware_there_is_no_snp_launch(make_machine: MakeMachine, boot: BootImages) -> None:
    with pytest.raises(ConfigError, match="an SNP launch needs firmware"), make_machine(b"", boot=boot) as machine:
        machine.start_launch()


@pytest.mark.parametrize("text", ["-1", "one", "0x10000000000000000"])
def test_features_that_are_no_number_are_refused(make_machine: MakeMachine, text: str) -> None:
    with pytest.raises(ConfigError, match=rf"^--snp-features '{text}': expected a number of at most 64 bits"):
        make_machine(firmware(), options={"snp_features": text}).__enter__()
