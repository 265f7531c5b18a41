"""Options that commands of the guest owner share, in the names of libvirt's ``virt-qemu-sev-validate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import click

from sevplug.cli.documents import plain_errors, read_document
from sevplug.core.errors import ConfigError

if TYPE_CHECKING:
    from sevplug.owner.expect import Expectation
    from sevplug.sevapi.keys import TransportKeys
    from sevplug.sevapi.measurement import LaunchMeasurement
    from sevplug.sevapi.policy import Policy
    from sevplug.sevapi.version import ApiVersion

_IMAGE_LIMIT = 1 << 30


def parse_number(option: str, text: str, bits: int = 32) -> int:
    """A number without a sign, decimal or (0x) hexadecimal; `ConfigError` for anything else."""
    digits, base = (text[2:], 16) if text[:2] in ("0x", "0X") else (text, 10)
    if digits.isascii() and digits.isalnum():
        try:
            number = int(digits, base)
        except ValueError:
            number = -1
        if 0 <= number < 1 << bits:
            return number
    raise ConfigError(f"{option} {text!r}: expected a number of at most {bits} bits, decimal or 0x...")


def policy_option() -> click.Option:
    """A fresh ``--policy``."""
    return click.Option(["--policy"], default="0x1", show_default=True, metavar="NUMBER", help="The guest policy.")


def api_options() -> list[click.Parameter]:
    """Fresh ``--api-major``, ``--api-minor`` and ``--build-id``."""
    return [
        click.Option(["--api-major"], metavar="NUMBER", help="The firmware's API version."),
        click.Option(["--api-minor"], metavar="NUMBER"),
        click.Option(["--build-id"], metavar="NUMBER", help="The firmware's build."),
    ]


def image_options() -> list[click.Parameter]:
    """Fresh options that name what is measured."""
    return [
        click.Option(["-f", "--firmware"], required=True, metavar="FILE", help="Firmware, as it is measured."),
        click.Option(["-k", "--kernel"], metavar="FILE", help="Kernel that the firmware checks (kernel-hashes=on)."),
        click.Option(["-r", "--initrd"], metavar="FILE"),
        click.Option(["-e", "--append", "--cmdline", "cmdline"], metavar="TEXT", help="The kernel's command line."),
        click.Option(["-n", "--num-cpus"], metavar="NUMBER", help="vCPUs, for an SEV-ES policy (0x4).  [default: 1]"),
        click.Option(["--cpu"], metavar="MODEL", help="Their model, as QEMU names it, or family, model and stepping."),
        click.Option(["--cpu-family"], metavar="NUMBER"),
        click.Option(["--cpu-model"], metavar="NUMBER"),
        click.Option(["--cpu-stepping"], metavar="NUMBER"),
        click.Option(
            ["--vmsa"],
            type=click.Choice(["init", "init2"]),
            help="How KVM makes the guest: init2 measures the FPU as well, init is QEMU's legacy-vm-type=on."
            "  [default: init2]",
        ),
        click.Option(["--sev-features"], metavar="NUMBER", help="What KVM switches on in them.  [default: 0]"),
    ]


def key_options() -> list[click.Parameter]:
    """Fresh ``--tik``, ``--tek`` and ``--tk``."""
    return [
        click.Option(["--tik"], metavar="FILE", help="Transport integrity key, 16 bytes."),
        click.Option(["--tek"], metavar="FILE", help="Transport encryption key, 16 bytes."),
        click.Option(["--tk"], metavar="FILE", help="Both in one file of 32 bytes: TEK, then TIK."),
    ]


def measurement_option() -> click.Option:
    """A fresh ``--measurement``."""
    return click.Option(
        ["-m", "--measurement"],
        metavar="BASE64|FILE",
        help="What query-sev-launch-measure gave: the text, or a file that holds it or its 48 bytes.",
    )


def read_policy(text: str) -> Policy:
    """The policy of ``--policy``."""
    from sevplug.sevapi.policy import Policy

    return Policy(parse_number("--policy", text))


def read_api(values: dict[str, Any]) -> ApiVersion | None:
    """The version that the three options name, None without any of them."""
    from sevplug.sevapi.version import ApiVersion

    names = ("api_major", "api_minor", "build_id")
    given = [values[name] for name in names]
    if not any(value is not None for value in given):
        return None
    if any(value is None for value in given):
        raise ConfigError("--api-major, --api-minor, --build-id: expected all three of them")
    return ApiVersion(*(parse_number(f"--{name.replace('_', '-')}", values[name], 8) for name in names))


def read_keys(values: dict[str, Any], tik_alone: bool = False) -> TransportKeys | None:
    """The keys that the options name, None without any; with ``tik_alone`` the TEK may be missing, and is zero then."""
    from sevplug.sevapi.keys import KEY_SIZE, TransportKeys, read_key

    tik, tek, both = values["tik"], values["tek"], values["tk"]
    if both is not None and (tik is not None or tek is not None):
        raise ConfigError("--tk: expected it or --tik and --tek, not both")
    if both is None and tik is None and tek is None:
        return None
    with plain_errors():
        if both is not None:
            data = read_document("--tk", both, limit=2 * KEY_SIZE)
            if len(data) != 2 * KEY_SIZE:
                raise ConfigError(f"--tk {both}: expected {2 * KEY_SIZE} bytes, found {len(data)}")
            return TransportKeys(tek=data[:KEY_SIZE], tik=data[KEY_SIZE:])
        if tik is None or (tek is None and not tik_alone):
            raise ConfigError("--tik, --tek: expected both of them, or --tk")
        return TransportKeys(tek=bytes(KEY_SIZE) if tek is None else read_key(tek, "--tek"), tik=read_key(tik, "--tik"))


def read_measurement(text: str) -> LaunchMeasurement:
    """The measurement of ``--measurement``."""
    from sevplug.sevapi.encodings import decode_base64, raw_or_base64
    from sevplug.sevapi.errors import FormatError
    from sevplug.sevapi.measurement import BLOB_SIZE, LaunchMeasurement

    decoded = decode_base64(text)
    if decoded is not None and len(decoded) == BLOB_SIZE:
        return LaunchMeasurement.from_blob(decoded)
    if not Path(text).exists():
        raise ConfigError(f"--measurement: expected {BLOB_SIZE} bytes in base64, or a file")
    data = read_document("--measurement", text, limit=4096)
    try:
        return LaunchMeasurement.from_blob(raw_or_base64(data, BLOB_SIZE, f"--measurement {text}"))
    except FormatError as error:
        raise ConfigError(str(error)) from None


@attrs.frozen
class Wanted:
    """What `image_options` and ``--policy`` describe, read."""

    policy: Policy
    firmware: bytes = attrs.field(repr=False)
    kernel: bytes | None = attrs.field(repr=False)
    initrd: bytes | None = attrs.field(repr=False)
    cmdline: str | None
    vcpus: Any

    def expectation(self, api: ApiVersion) -> Expectation:
        """The launch that the owner expects on firmware of version ``api``."""
        from sevplug.owner.expect import expect_images

        with plain_errors():
            return expect_images(self.policy, api, self.firmware, self.kernel, self.initrd, self.cmdline, self.vcpus)


def read_wanted(values: dict[str, Any]) -> Wanted:
    """Read the images and numbers of `image_options`; `ConfigError` names the option."""
    policy = read_policy(values["policy"])

    def image(name: str) -> bytes | None:
        path = values[name]
        return None if path is None else read_document(f"--{name}", path, limit=_IMAGE_LIMIT)

    firmware = image("firmware")
    assert firmware is not None
    return Wanted(policy, firmware, image("kernel"), image("initrd"), values["cmdline"], _vcpus(policy, values))


def _vcpus(policy: Policy, values: dict[str, Any]) -> Any:
    from sevplug.owner.expect import Vcpus
    from sevplug.sevapi.policy import PolicyBit
    from sevplug.sevapi.vmsa import VmsaVariant

    names = ("num_cpus", "cpu", "cpu_family", "cpu_model", "cpu_stepping", "vmsa", "sev_features")
    if PolicyBit.ES not in policy:
        for name in names:
            if values[name] is not None:
                raise ConfigError(f"--{name.replace('_', '-')}: for an SEV-ES policy (0x4) only, found policy {policy}")
        return None
    return Vcpus(
        count=parse_number("--num-cpus", values["num_cpus"] or "1", 16),
        signature=_signature(values),
        variant=VmsaVariant(values["vmsa"] or "init2"),
        sev_features=parse_number("--sev-features", values["sev_features"] or "0", 64),
    )


def _signature(values: dict[str, Any]) -> int:
    from sevplug.core.cpumodel import find_model
    from sevplug.sevapi.vmsa import cpu_signature

    names = ("cpu_family", "cpu_model", "cpu_stepping")
    given = [values[name] is not None for name in names]
    if values["cpu"] is not None and any(given):
        raise ConfigError("--cpu: expected it or --cpu-family, --cpu-model and --cpu-stepping, not both")
    if values["cpu"] is not None:
        return find_model(values["cpu"]).signature
    if not all(given):
        raise ConfigError("--cpu: an SEV-ES launch measures the CPU's model, expected it or the numbers of it")
    with plain_errors():
        return cpu_signature(*(parse_number(f"--{name.replace('_', '-')}", values[name], 16) for name in names))
