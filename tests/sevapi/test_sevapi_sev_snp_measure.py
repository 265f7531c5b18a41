"""The launch digest, compared with sev-snp-measure's."""

from pathlib import Path

import pytest

from sevplug.owner.expect import Vcpus, expected_digest
from sevplug.sevapi.digest import launch_digest
from sevplug.sevapi.hash_table import hash_images

pytestmark = pytest.mark.real

KERNEL = b"a kernel image, of which only the hash matters" * 100
INITRD = b"an initrd" * 77


def their_digest(firmware: Path, kernel: Path | None, initrd: Path | None, cmdline: str | None) -> bytes:
    import sevsnpmeasure.guest as measure
    from sevsnpmeasure.sev_mode import SevMode

    digest = measure.calc_launch_digest(
        SevMode.SEV, 1, 0, str(firmware), kernel and str(kernel), initrd and str(initrd), cmdline, 0
    )
    assert isinstance(digest, bytes)
    return digest


def test_firmware_alone(ovmf_amdsev: Path) -> None:
    assert launch_digest(ovmf_amdsev.read_bytes()) == their_digest(ovmf_amdsev, None, None, None)


@pytest.mark.parametrize("initrd", [b"", INITRD], ids=["no initrd", "initrd"])
@pytest.mark.parametrize("cmdline", ["", "console=ttyS0 quiet"], ids=["no command line", "command line"])
def test_firmware_and_kernel_hashes(ovmf_amdsev: Path, tmp_path: Path, initrd: bytes, cmdline: str) -> None:
    kernel_file, initrd_file = tmp_path / "kernel", tmp_path / "initrd"
    kernel_file.write_bytes(KERNEL)
    initrd_file.write_bytes(initrd)
    ours = launch_digest(ovmf_amdsev.read_bytes(), hash_images(KERNEL, initrd, cmdline).to_bytes())
    assert ours == their_digest(ovmf_amdsev, kernel_file, initrd_file if initrd else None, cmdline or None)


@pytest.mark.parametrize("vcpus", [1, 2, 5])
@pytest.mark.parametrize("kernel", [False, True], ids=["firmware", "kernel"])
def test_the_processors_of_an_es_guest(ovmf_amdsev: Path, tmp_path: Path, vcpus: int, kernel: bool) -> None:
    import sevsnpmeasure.guest as measure
    from sevsnpmeasure.sev_mode import SevMode

    kernel_file = tmp_path / "kernel"
    kernel_file.write_bytes(KERNEL)
    theirs = measure.calc_launch_digest(
        SevMode.SEV_ES, vcpus, 0xA00F11, str(ovmf_amdsev), str(kernel_file) if kernel else None, None, "quiet", 0
    )
    images = (KERNEL, None, "quiet") if kernel else ()
    assert expected_digest(ovmf_amdsev.read_bytes(), *images, vcpus=Vcpus(vcpus, 0xA00F11)) == theirs
