"""The launch digest of a machine and of the command equals that of sev-snp-measure, link by link."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import MakeMachine
from images import firmware
from sevsnpmeasure.gctx import GCTX

from sevplug import hookimpl
from sevplug.core.errors import ConfigError

Measure = Callable[..., str]


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    """``sevplug -P snp-stub snp-measure`` as a user calls it."""
    line = ["sevplug", "-P", "snp-stub", "-P", "no:sev", "snp-measure", *arguments]
    return subprocess.run(line, check=False, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("features", ["0x1", "0x21"])
def test_the_command_prints_what_sev_snp_measure_prints(
    firmware_file: Path, snp_measure: Measure, features: str
) -> None:
    done = command("--firmware", str(firmware_file), "--cpu", "EPYC-Rome", "--snp-features", features)
    oracle = ("--ovmf", str(firmware_file), "--vcpu-type", "EPYC-Rome", "--guest-features", features)
    assert done.stdout.strip() == snp_measure(*oracle)


def test_a_kernel_is_measured_by_its_hashes(firmware_file: Path, snp_measure: Measure, tmp_path: Path) -> None:
    (tmp_path / "kernel").write_bytes(b"kernel" * 1000)
    (tmp_path / "initrd").write_bytes(b"initrd" * 1000)
    images = ["--kernel", str(tmp_path / "kernel"), "--initrd", str(tmp_path / "initrd"), "--append", "console=ttyS0"]
    digests = {
        command("--firmware", str(firmware_file), *images).stdout.strip(),
        snp_measure("--ovmf", str(firmware_file), "--vcpu-type", "EPYC-Milan", *images),
    }
    assert len(digests) == 1
    assert digests != {command("--firmware", str(firmware_file)).stdout.strip()}


def test_a_machine_launches_what_the_command_expects(
    make_machine: MakeMachine, firmware_file: Path, snp_measure: Measure
) -> None:
    with make_machine(firmware_file.read_bytes()) as machine:
        machine.start_launch()
        assert machine.launch.measurement is not None
        digest = machine.launch.measurement.digest.hex()
    assert digest == snp_measure("--ovmf", str(firmware_file), "--vcpu-type", "EPYC-Milan")


class PageRecorder:
    """Another plug-in, which implements the hook that this one specifies."""

    def __init__(self) -> None:
        self.pages: list[tuple[int, int, bytes]] = []

    @hookimpl(optionalhook=True)
    def snp_page(self, gpa: int, page_type: int, digest: bytes) -> None:
        self.pages.append((gpa, page_type, digest))


def test_each_page_is_told_to_others_with_the_digest_that_includes_it(make_machine: MakeMachine) -> None:
    image, recorder = firmware([(0x800000, 0x2000, 1), (0x80D000, 0x1000, 2), (0x80E000, 0x1000, 3)]), PageRecorder()
    with make_machine(image, recorder) as machine:
        machine.start_launch()
        assert [region.page_type for region in machine.launch.regions] == ["normal", 3, 5, 6]
    oracle, expected = GCTX(), []
    for gpa, kind, update in (
        (0xFFFFE000, 1, lambda gpa: oracle.update_normal_pages(gpa, image[:0x1000])),
        (0xFFFFF000, 1, lambda gpa: oracle.update_normal_pages(gpa, image[0x1000:])),
        (0x800000, 3, lambda gpa: oracle.update_zero_pages(gpa, 0x1000)),
        (0x801000, 3, lambda gpa: oracle.update_zero_pages(gpa, 0x1000)),
        (0x80D000, 5, oracle.update_secrets_page),
        (0x80E000, 6, oracle.update_cpuid_page),
    ):
        update(gpa)
        expected.append((gpa, kind, oracle.ld()))
    *pages, (vmsa_gpa, vmsa_kind, _digest) = recorder.pages
    assert pages == expected
    assert (vmsa_gpa, vmsa_kind) == (0xFFFFFFFFF000, 2)


@pytest.mark.parametrize(
    ("image", "complaint"),
    [
        (firmware([(0x800000, 0x1000, 9)]), "SEV metadata: section 0: type 0x9 is not known"),
        (firmware([], version=2), "SEV metadata: expected ASEV and version 1, found b'ASEV' and 2"),
        (
            firmware([(0x800000, 0x1000, 1)], count=2),
            "SEV metadata: 2 sections do not make 28 bytes, or are not inside",
        ),
        (firmware([(0x8000000, 0x1000, 1)]), "sec mem at 0x8000000, 4096 bytes: expected a place inside guest memory"),
    ],
)
def test_metadata_that_does_not_fit_is_refused(make_machine: MakeMachine, image: bytes, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint.replace("[", r"\[")):
        make_machine(image).__enter__()


def test_a_kernel_needs_a_place_for_its_hashes(tmp_path: Path) -> None:
    image = tmp_path / "test.fd"
    image.write_bytes(firmware([]))
    done = command("--firmware", str(image), "--kernel", str(image))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"sevplug: error: --firmware {image}: SEV metadata: expected a section for kernel")


def test_a_missing_file_is_one_line_and_status_2(tmp_path: Path) -> None:
    done = command("--firmware", str(tmp_path / "none"))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"sevplug: error: --firmware {tmp_path / 'none'}: No such file or directory\n"
