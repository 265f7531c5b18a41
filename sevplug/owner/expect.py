"""What the owner expects of a launch, and whether the measurement bears it out."""

from __future__ import annotations

import attrs

from sevplug.owner.errors import OwnerError
from sevplug.sevapi.checks import bytes_of_length
from sevplug.sevapi.digest import DIGEST_SIZE, launch_digest
from sevplug.sevapi.errors import SevApiError
from sevplug.sevapi.guid_table import parse_guid_table
from sevplug.sevapi.measurement import LaunchMeasurement, verify
from sevplug.sevapi.policy import Policy, PolicyBit
from sevplug.sevapi.version import ApiVersion
from sevplug.sevapi.vmsa import VmsaVariant, vmsa_pages


@attrs.frozen
class Expectation:
    """A launch as the owner wants it: policy, API version of the platform, and launch digest (32 bytes)."""

    policy: Policy
    api: ApiVersion
    digest: bytes = attrs.field(validator=bytes_of_length(DIGEST_SIZE), repr=bytes.hex)

    def __str__(self) -> str:
        return f"policy {self.policy}, API {self.api}, launch digest {self.digest.hex()}"


@attrs.frozen
class Vcpus:
    """The virtual processors of an SEV-ES guest, as far as they are measured (see `sevapi.vmsa`).

    `signature` is EAX of CPUID 1 (`cpu_signature`), `variant` how the host's KVM makes such guests, `sev_features` what
    it switches on in them.
    """

    count: int
    signature: int
    variant: VmsaVariant = VmsaVariant.INIT2
    sev_features: int = 0


def expected_digest(
    firmware: bytes,
    kernel: bytes | None = None,
    initrd: bytes | None = None,
    cmdline: str | None = None,
    vcpus: Vcpus | None = None,
) -> bytes:
    """The launch digest (32 bytes) of a firmware image and, if there is one, a kernel booted directly.

    With `vcpus` it is that of an SEV-ES guest, else that of an SEV guest. Raises OwnerError for an initrd or command
    line without a kernel, for a kernel whose hashes the firmware has no room for, and for vCPUs that it can't start.
    """
    regions = [firmware]
    try:
        if kernel is not None:
            from sevplug.sevapi.hash_table import hash_images, required_area  # only where there is a kernel

            required_area(parse_guid_table(firmware))
            regions.append(hash_images(kernel, initrd or b"", cmdline or "").to_bytes())
        elif initrd is not None or cmdline is not None:
            raise OwnerError("expectation: an initrd or a kernel command line needs a kernel")
        if vcpus is not None:
            reset = parse_guid_table(firmware).es_reset_vector
            regions += vmsa_pages(vcpus.count, reset, vcpus.signature, vcpus.variant, vcpus.sev_features)
    except SevApiError as error:
        raise OwnerError(f"expectation: {error}") from error
    return launch_digest(*regions)


def expect_images(
    policy: Policy,
    api: ApiVersion,
    firmware: bytes,
    kernel: bytes | None = None,
    initrd: bytes | None = None,
    cmdline: str | None = None,
    vcpus: Vcpus | None = None,
) -> Expectation:
    """The expectation for a launch of these images (see `Expectation` and `expected_digest`).

    Raises OwnerError as `expected_digest` does, and when the policy asks for SEV-ES and `vcpus` are not given, or the
    other way round.
    """
    if PolicyBit.ES in policy and vcpus is None:
        raise OwnerError(f"expectation: policy {policy} asks for SEV-ES, which measures processor state as well")
    if PolicyBit.ES not in policy and vcpus is not None:
        raise OwnerError(f"expectation: policy {policy} does not ask for SEV-ES, so that no vCPU is measured")
    return Expectation(policy, api, expected_digest(firmware, kernel, initrd, cmdline, vcpus))


def check_reported(expectation: Expectation, policy: Policy, api: ApiVersion) -> None:
    """Raises OwnerError, naming the difference, unless the host reports the policy and API expected.

    The host can lie about both, and the measurement then gives it away; but only the report says what is
    different.
    """
    if policy != expectation.policy:
        raise OwnerError(f"launch: expected policy {expectation.policy}, the host reports {policy}")
    if api != expectation.api:
        raise OwnerError(f"launch: expected API {expectation.api}, the host reports {api}")


def verify_measurement(
    expectation: Expectation, tik: bytes, measurement: LaunchMeasurement | bytes
) -> LaunchMeasurement:
    """The measurement (or the one in a 48-byte blob), once it is known to be that of the launch expected.

    Raises OwnerError when it is not, or when the blob or `tik` (16 bytes) has the wrong length. A MAC does
    not tell which of the things it covers is different, so the message says what was expected of each.
    """
    try:
        if not isinstance(measurement, LaunchMeasurement):
            measurement = LaunchMeasurement.from_blob(measurement)
        matches = verify(measurement, tik, expectation.api, expectation.policy, expectation.digest)
    except SevApiError as error:
        raise OwnerError(f"launch measurement: {error}") from error
    if not matches:
        raise OwnerError(
            f"launch measurement: does not match; expected {expectation}; "
            "one of these or the TIK is different on the platform"
        )
    return measurement
