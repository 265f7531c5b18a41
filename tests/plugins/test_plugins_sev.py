"""The plug-in ``sev``: what the guest sees, which object it is made from, and how its launch begins."""

from __future__ import annotations

from pathlib import Path

import pytest
from assembler import assemble
from machines import machine_with, run_guest
from sev_guests import HASH_AREA, TEK, TIK, firmware_with_hash_area, sev_guest, sev_object

from sevplug.boot import embedded
from sevplug.core.config import BootImages, Image, ObjectSpec
from sevplug.core.errors import ConfigError, GuestFault, LaunchRefused
from sevplug.core.vcpu import PRIVATE, Access, CpuidRegisters
from sevplug.plugins.sev import MSR_SEV_STATUS, SevPlugin
from sevplug.sevapi.hash_table import hash_images
from sevplug.sevapi.status import Status
from sevplug.sevapi.version import EMULATED_API as API

# -- what the guest sees ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("c_bit", "reduced"), [(40, 5), (47, 1), (51, 1)])
def test_the_leaf_says_sev_the_c_bit_and_the_lost_address_bits(c_bit: int, reduced: int) -> None:
    with sev_guest(sev_object(cbitpos=str(c_bit), reduced_phys_bits=str(reduced))) as guest:
        leaf = guest.machine.cpu.cpuid(0x8000001F, 0)
        assert leaf == CpuidRegisters(eax=1 << 1, ebx=c_bit | reduced << 6, ecx=0, edx=0)
        assert guest.machine.cpu.cpuid(0x80000000, 0).eax >= 0x8000001F


def test_other_leaves_are_the_cpu_models() -> None:
    with sev_guest() as guest, machine_with(None) as (plain, _board):
        for leaf in (0, 1, 7, 0x80000001, 0x80000008):
            assert guest.machine.cpu.cpuid(leaf, 0) == plain.cpu.cpuid(leaf, 0)


def test_a_plain_machine_has_neither_leaf_nor_msr() -> None:
    with machine_with(None) as (machine, _board):
        assert machine.cpu.cpuid(0x8000001F, 0) == CpuidRegisters(0, 0, 0, 0)
        with pytest.raises(GuestFault) as fault:
            machine.cpu.msr_read(MSR_SEV_STATUS)
        assert (fault.value.vector, fault.value.error_code) == (13, 0)


def test_sev_status_reads_as_sev_enabled_and_nothing_more() -> None:
    with sev_guest() as guest:
        assert guest.machine.cpu.msr_read(0xC0010131) == 1


def test_sev_status_is_read_only() -> None:
    with sev_guest() as guest, pytest.raises(GuestFault) as fault:
        guest.machine.cpu.msr_write(0xC0010131, 1)
    assert (fault.value.vector, fault.value.error_code) == (13, 0)


HANDLER = """
    mov     word ptr [13 * 4], 0x300
    mov     word ptr [13 * 4 + 2], 0
    mov     dword ptr [0x300], 0x80e613b0       # mov al, 0x13; out 0x80, al
    mov     dword ptr [0x304], 0xf4e6           # out 0xf4, al
"""


def test_a_guest_reads_the_msr_and_takes_gp_for_writing_it() -> None:
    read = "mov ecx, 0xc0010131; rdmsr; out 0x80, al; mov al, dl; out 0x80, al; "
    run = run_guest(HANDLER + read + "wrmsr; mov al, 0x77; out 0x80, al; out 0xf4, al", plugins=[SevPlugin()])
    assert run.ports_written == [1, 0, 0x13]
    assert run.counters["faults"] == 1


@pytest.mark.parametrize("c_bit", [40, 47, 51])
def test_translate_strips_the_c_bit_and_says_what_is_private(c_bit: int) -> None:
    plugin = SevPlugin()
    with sev_guest(sev_object(cbitpos=str(c_bit)), without=("sev",), plugins=(plugin,)) as guest:
        mask, cpu = 1 << c_bit, guest.machine.cpu
        assert plugin.translate(cpu, 0x5000, Access.READ) == 0x5000 | PRIVATE  # paging is off
        cpu.set("cr4", 1 << 5)
        cpu.set("cr0", 1 << 31 | 1)
        assert plugin.address_rule() == mask
        for access in (Access.READ, Access.WRITE, Access.READ | Access.USER):
            assert plugin.translate(cpu, 0x5000 | mask, access) == 0x5000 | PRIVATE
            assert plugin.translate(cpu, 0x5000, access) == 0x5000
        for access in (Access.FETCH, Access.TABLE | Access.READ):
            assert plugin.translate(cpu, 0x5000 | mask, access) == 0x5000 | PRIVATE
            assert plugin.translate(cpu, 0x5000, access) == 0x5000 | PRIVATE


@pytest.mark.parametrize("c_bit", [40, 47, 51])
def test_the_embedded_guest_lives_with_the_c_bit_wherever_it_is(c_bit: int) -> None:
    with sev_guest(sev_object(cbitpos=str(c_bit))) as guest:
        assert guest.machine.run(timeout=10).result == "shutdown"
    assert f"SEV, C-bit {c_bit}, physical address bits reduced by 1\n" in guest.board.text
    assert "[FAIL]" not in guest.board.text


# -- objects and machine options -------------------------------------------------------------------------------------


def test_without_an_object_the_guest_has_the_defaults() -> None:
    with sev_guest() as guest:
        assert guest.machine.cpu.cpuid(0x8000001F, 0).ebx == 51 | 1 << 6


@pytest.mark.parametrize("option", ["memory-encryption", "confidential-guest-support"])
def test_either_spelling_of_the_machine_option_chooses_the_object(option: str) -> None:
    objects = (sev_object("a", cbitpos="47"), sev_object("b", cbitpos="48"))
    with sev_guest(*objects, machine_options={option: "b"}) as guest:
        assert guest.machine.cpu.cpuid(0x8000001F, 0).ebx & 0x3F == 48


def test_a_lone_object_needs_no_machine_option() -> None:
    with sev_guest(sev_object("any", cbitpos="45")) as guest:
        assert guest.machine.cpu.cpuid(0x8000001F, 0).ebx & 0x3F == 45


def build_refusal(*objects: object, **config: object) -> str:
    with pytest.raises(ConfigError) as refused, sev_guest(*objects, **config):  # type: ignore[arg-type]
        pass
    return str(refused.value)


@pytest.mark.parametrize("option", ["memory-encryption", "confidential-guest-support"])
def test_an_id_that_no_object_has_is_refused_in_the_spelling_that_was_used(option: str) -> None:
    text = build_refusal(sev_object("sev0"), machine_options={option: "sev1"})
    assert text == f"machine option {option}=sev1: no SEV object has that id"


def test_two_objects_need_the_machine_option() -> None:
    text = build_refusal(sev_object("a"), sev_object("b"))
    assert text == "2 SEV objects: say which one with memory-encryption=ID"


def test_two_objects_of_one_id_are_refused() -> None:
    text = build_refusal(sev_object("a", cbitpos="47"), sev_object("a", cbitpos="48"))
    assert text == "two SEV objects have the id a"


def test_both_spellings_at_once_are_refused() -> None:
    text = build_refusal(sev_object("a"), machine_options={"memory-encryption": "a", "confidential-guest-support": "a"})
    assert text == "machine option 'confidential-guest-support' is not known to any enabled plug-in"


def test_an_object_that_is_not_chosen_is_checked_too() -> None:
    objects = (sev_object("a"), sev_object("b", cbitpos="12"))
    text = build_refusal(*objects, machine_options={"memory-encryption": "a"})
    assert text.startswith("object sev-emulated (id=b): cbitpos=12: expected 40 to 51")


def test_a_bad_object_ends_the_construction() -> None:
    assert build_refusal(sev_object(policy="0x4")) == (
        "object sev-emulated (id=sev0): policy 0x4 asks for SEV-ES, which is not emulated"
    )


def test_objects_of_another_type_are_left_and_then_refused() -> None:
    text = build_refusal(ObjectSpec("rng-random", "rng0"))
    assert text == "object type 'rng-random' (id=rng0) is not known to any enabled plug-in"


# -- keys ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def key_files(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "tik.bin").write_bytes(TIK)
    (tmp_path / "tek.bin").write_bytes(TEK)
    return {"tik": str(tmp_path / "tik.bin"), "tek": str(tmp_path / "tek.bin")}


@pytest.mark.parametrize(
    ("given", "named"), [((), "tik and tek"), (("tik",), "tek"), (("tek",), "tik"), (("tik", "tek"), None)]
)
def test_keys_of_zeros_come_with_a_warning_that_names_them(
    key_files: dict[str, str], given: tuple[str, ...], named: str | None
) -> None:
    with sev_guest(sev_object(**{name: key_files[name] for name in given})) as guest:
        texts = [fields["text"] for fields in guest.events.of("warning")]
    assert texts == ([] if named is None else [f"no {named} given: 16 zero bytes are used, which everybody knows"])


# -- the launch ------------------------------------------------------------------------------------------------------


def test_a_launch_has_the_objects_policy_keys_and_c_bit(key_files: dict[str, str]) -> None:
    with sev_guest(sev_object(cbitpos="47", policy="0x3", **key_files)) as guest:
        guest.machine.start_launch()
        context = guest.context
        assert (int(context.policy), context.c_bit, context.handle, context.api) == (3, 47, 1, API)
        assert (context.keys.tik, context.keys.tek) == (TIK, TEK)


@pytest.mark.parametrize("policy", [0xFF010001, 0x00020001, 0xFFFF0001, 0x00000041, 0x00008001])
def test_a_policy_for_newer_firmware_or_with_reserved_bits_is_refused(policy: int) -> None:
    with sev_guest(sev_object(policy=hex(policy))) as guest:
        with pytest.raises(LaunchRefused) as refused:
            guest.machine.start_launch()
        assert refused.value.status == int(Status.POLICY_FAILURE) == 7
        assert str(refused.value) == (
            f"LAUNCH_START: policy {policy:#x} is refused by firmware API {API}: Policy is not allowed"
        )
        assert guest.machine.launch.state.value == "uninit"


def test_a_policy_wants_at_most_this_api() -> None:
    with sev_guest(sev_object(policy=hex(API.minor << 24 | API.major << 16 | 1))) as guest:
        guest.machine.start_launch()
        assert guest.machine.launch.state.value == "launch-secret"
    for major, minor in ((API.major, API.minor + 1), (API.major + 1, 0)):
        with sev_guest(sev_object(policy=hex(minor << 24 | major << 16 | 1))) as guest:
            with pytest.raises(LaunchRefused) as refused:
                guest.machine.start_launch()
            assert refused.value.status == 7


def test_a_sev_guest_needs_firmware() -> None:
    with sev_guest(boot=BootImages()) as guest, pytest.raises(ConfigError) as refused:
        guest.machine.start_launch()
    assert str(refused.value) == "a SEV guest needs firmware to launch: give one with --bios"


def test_firmware_whose_guid_table_lies_is_refused_when_the_machine_is_made() -> None:
    data = bytearray(embedded.load().firmware.data)  # type: ignore[union-attr]
    at = len(data) - 32 - 18
    data[at : at + 2] = (0xFFFF).to_bytes(2, "little")
    with pytest.raises(ConfigError) as refused, sev_guest(firmware=bytes(data)):
        pass
    assert str(refused.value).startswith("firmware guest.fd: firmware GUID table: length 65535 at offset ")


def test_without_the_measurement_the_guest_starts_with_a_warning(key_files: dict[str, str]) -> None:
    with sev_guest(sev_object(**key_files), without=("measurement",)) as guest:
        assert guest.machine.run(timeout=10).result == "shutdown"
        assert guest.machine.launch.state.value == "running"
    texts = [fields["text"] for fields in guest.events.of("warning")]
    assert texts == ["the guest starts without a launch measurement: the plug-in 'measurement' is off"]


def test_the_summary_speaks_of_the_launch() -> None:
    with sev_guest() as guest:
        run = guest.machine.run(timeout=10)
        document = guest.machine.summary(run)
    assert {key: document["sev"][key] for key in ("policy", "state", "api_major", "api_minor", "build_id")} == {
        "policy": 1, "state": "running", "api_major": API.major, "api_minor": API.minor, "build_id": API.build,
    }  # fmt: skip


# -- kernel hashes ---------------------------------------------------------------------------------------------------

KERNEL, INITRD = Image(b"kernel " * 100, "vmlinuz"), Image(b"initrd", "initrd.img")


def test_kernel_hashes_are_launched_after_the_firmware_where_it_says() -> None:
    firmware = firmware_with_hash_area()
    boot = BootImages(firmware=Image(firmware, "guest.fd"), kernel=KERNEL, initrd=INITRD, cmdline="quiet")
    expected = hash_images(KERNEL.data, INITRD.data, "quiet").to_bytes()
    with sev_guest(sev_object(kernel_hashes="on"), boot=boot) as guest:
        guest.machine.start_launch()
        regions = [(region.name, region.gpa, region.data) for region in guest.machine.launch.regions]
        assert regions == [
            ("firmware", (1 << 32) - len(firmware), firmware),
            ("kernel hashes", HASH_AREA, expected),
        ]
        assert guest.machine.memory.read(HASH_AREA, len(expected), private=True) == expected


@pytest.mark.parametrize("hashes", ["off", None])
def test_kernel_hashes_are_launched_only_when_they_are_asked_for(hashes: str | None) -> None:
    boot = BootImages(firmware=Image(firmware_with_hash_area(), "guest.fd"), kernel=KERNEL)
    given = {} if hashes is None else {"kernel_hashes": hashes}
    with sev_guest(sev_object(**given), boot=boot) as guest:
        guest.machine.start_launch()
        assert [region.name for region in guest.machine.launch.regions] == ["firmware"]


def test_without_a_place_for_the_hashes_the_machine_is_refused() -> None:
    boot = BootImages(firmware=Image(assemble("hlt"), "guest.fd"), kernel=KERNEL)
    with (
        pytest.raises(ConfigError, match=r"^firmware guest\.fd: "),
        sev_guest(sev_object(kernel_hashes="on"), boot=boot),
    ):
        pass


def test_a_place_outside_ram_is_refused() -> None:
    boot = BootImages(firmware=Image(firmware_with_hash_area(base=0x9000_0000), "guest.fd"), kernel=KERNEL)
    with (
        pytest.raises(
            ConfigError, match=r"^kernel hashes at 0x90000000, \d+ bytes: expected a place inside guest memory$"
        ),
        sev_guest(sev_object(kernel_hashes="on"), boot=boot),
    ):
        pass
