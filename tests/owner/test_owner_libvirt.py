"""The owner's side, compared with libvirt's: virt-qemu-sev-validate, offline."""

import base64
import subprocess
from pathlib import Path
from uuid import UUID

import attrs
import pytest
from parts import find_tool, missing
from sev_platforms import CHAIN

from sevplug.cli.app import run_app
from sevplug.owner.expect import Vcpus, expect_images, expected_digest
from sevplug.owner.session import make_owner_session
from sevplug.sevapi.keys import TransportKeys
from sevplug.sevapi.measurement import LaunchMeasurement, measure
from sevplug.sevapi.packet import SecretPacket, open_packet
from sevplug.sevapi.policy import Policy
from sevplug.sevapi.secret_table import LUKS_KEY, parse_secret_table
from sevplug.sevapi.version import ApiVersion
from sevplug.sevapi.vmsa import VmsaVariant, cpu_signature

pytestmark = pytest.mark.real

# The script says "env python3", which in a virtual environment is a Python without Debian's modules.
PYTHON = "/usr/bin/python3"
VALIDATE = "/usr/bin/virt-qemu-sev-validate"

API = ApiVersion(1, 55, 24)
KEYS = TransportKeys(tek=b"encryption key!!", tik=b"integrity key!!!")
OTHER_GUID = UUID("01234567-89ab-cdef-0123-456789abcdef")
IMAGES = {"kernel": b"kernel" * 1000, "initrd": b"initrd" * 500, "cmdline": "console=ttyS0 quiet"}


@attrs.frozen
class Validator:
    """virt-qemu-sev-validate with what it is told; a test changes one thing and asks again."""

    directory: Path
    firmware: Path
    measurement: LaunchMeasurement
    api: ApiVersion = API
    policy: int = 1
    tik: bytes = KEYS.tik

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        (self.directory / "tik").write_bytes(self.tik)
        (self.directory / "tek").write_bytes(KEYS.tek)
        told = {
            "--firmware": self.firmware,
            "--tik": self.directory / "tik",
            "--tek": self.directory / "tek",
            "--measurement": self.measurement.to_base64(),
            "--api-major": self.api.major,
            "--api-minor": self.api.minor,
            "--build-id": self.api.build,
            "--policy": self.policy,
        }
        words = [str(word) for pair in told.items() for word in pair]
        return subprocess.run(
            [PYTHON, VALIDATE, *words, *arguments], capture_output=True, text=True, timeout=60, check=False
        )


@pytest.fixture(scope="module", autouse=True)
def libvirts_tool() -> None:
    find_tool("virt-qemu-sev-validate", "libvirt-clients-qemu")
    modules = [PYTHON, "-c", "import libvirt, lxml.etree, cryptography"]
    probe = subprocess.run(modules, capture_output=True, text=True, timeout=60, check=False)
    if probe.returncode:
        # libvirt-clients-qemu itself depends on neither lxml nor cryptography.
        reason = probe.stderr.strip().splitlines()[-1]
        missing(f"{VALIDATE} needs Debian's python3-libvirt, python3-lxml and python3-cryptography: {reason}")


@pytest.fixture
def validator(tmp_path: Path, ovmf_amdsev: Path) -> Validator:
    """The tool, told the truth about a launch of the firmware alone."""
    return launched(tmp_path, ovmf_amdsev)


def launched(directory: Path, firmware: Path, **images: object) -> Validator:
    expectation = expect_images(Policy(1), API, firmware.read_bytes(), **images)  # type: ignore[arg-type]
    measurement = measure(KEYS.tik, expectation.api, expectation.policy, expectation.digest, mnonce=bytes(range(16)))
    return Validator(directory, firmware, measurement)


def test_our_measurement_is_accepted(validator: Validator) -> None:
    run = validator.run()
    assert (run.returncode, run.stdout) == (0, "OK: Looks good to me\n"), run.stderr


def test_our_measurement_is_refused_with_a_wrong_tik(validator: Validator) -> None:
    assert_refused(attrs.evolve(validator, tik=bytes(16)))


def test_our_measurement_is_refused_with_a_wrong_policy(validator: Validator) -> None:
    assert_refused(attrs.evolve(validator, policy=0))


def test_our_measurement_is_refused_with_a_wrong_build(validator: Validator) -> None:
    assert_refused(attrs.evolve(validator, api=ApiVersion(1, 55, 25)))


def test_our_measurement_is_refused_with_a_wrong_firmware(validator: Validator, tmp_path: Path) -> None:
    image = bytearray(validator.firmware.read_bytes())
    image[0] ^= 1
    other = tmp_path / "other.fd"
    other.write_bytes(image)
    assert_refused(attrs.evolve(validator, firmware=other))


def test_our_measurement_of_a_kernel_is_accepted_with_that_kernel_only(tmp_path: Path, ovmf_amdsev: Path) -> None:
    validator = launched(tmp_path, ovmf_amdsev, **IMAGES)
    kernel, initrd = tmp_path / "kernel", tmp_path / "initrd"
    kernel.write_bytes(b"kernel" * 1000)
    initrd.write_bytes(b"initrd" * 500)
    arguments = ["--kernel", str(kernel), "--initrd", str(initrd), "--cmdline", "console=ttyS0 quiet"]
    assert validator.run(*arguments).returncode == 0
    kernel.write_bytes(b"another kernel")
    assert validator.run(*arguments).returncode == 1


@pytest.mark.parametrize("size", [8, 18], ids=["aligned table", "table that needs padding"])
def test_the_packet_that_libvirt_builds_opens(validator: Validator, tmp_path: Path, size: int) -> None:
    luks, other = tmp_path / "luks", tmp_path / "other"
    luks.write_bytes(b"MY-LUKS-PASSPHRASE"[:size])
    other.write_bytes(b"another secret, 28 bytes lon")
    header, payload = tmp_path / "header", tmp_path / "payload"
    run = validator.run(
        "--inject-secret", f"luks-key:{luks}",
        "--inject-secret", f"{OTHER_GUID}:{other}",
        "--secret-header", str(header),
        "--secret-payload", str(payload),
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    packet = SecretPacket(base64.b64decode(header.read_bytes()), base64.b64decode(payload.read_bytes()))
    assert parse_secret_table(open_packet(packet, KEYS, validator.measurement)) == {
        LUKS_KEY: luks.read_bytes(),
        OTHER_GUID: other.read_bytes(),
    }


def assert_refused(validator: Validator) -> None:
    run = validator.run()
    assert run.returncode == 1
    assert run.stderr == "ERROR: Measurement does not match, VM is not trustworthy\n"


def test_a_session_of_ours_is_what_tk_takes(validator: Validator, tmp_path: Path) -> None:
    made = make_owner_session(CHAIN.pdh, Policy(1))
    tk = tmp_path / "tk"
    tk.write_bytes(made.keys.tek + made.keys.tik)
    measurement = measure(made.keys.tik, API, Policy(1), expected_digest(validator.firmware.read_bytes()), bytes(16))
    command = [PYTHON, VALIDATE, "--firmware", validator.firmware, "--tk", tk, "--policy", 1]
    command += ["--measurement", measurement.to_base64()]
    command += ["--api-major", API.major, "--api-minor", API.minor, "--build-id", API.build]
    words = [str(word) for word in command]
    run = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert (run.returncode, run.stdout) == (0, "OK: Looks good to me\n"), run.stderr
    assert run_app(["owner", "verify", "--api-major", "1", "--api-minor", "55", "--build-id", "24", *words[2:10]]) == 0


@pytest.mark.parametrize("count", [1, 3])
def test_the_processors_of_an_es_guest_are_those_of_kvm_sev_es_init(
    tmp_path: Path, ovmf_amdsev: Path, count: int
) -> None:
    vcpus = Vcpus(count, cpu_signature(25, 1, 1), VmsaVariant.INIT)
    digest = expected_digest(ovmf_amdsev.read_bytes(), vcpus=vcpus)
    measurement = measure(KEYS.tik, API, Policy(5), digest, bytes(16))
    told = Validator(tmp_path, ovmf_amdsev, measurement, policy=5)
    cpu = ["--cpu-family", "25", "--cpu-model", "1", "--cpu-stepping", "1"]
    run = told.run("--num-cpus", str(count), *cpu)
    assert (run.returncode, run.stdout) == (0, "OK: Looks good to me\n"), run.stderr
    assert told.run("--num-cpus", str(count + 1), *cpu).returncode == 1
