"""The commands about SEV: what is asked of the launch and what is given to it.

Forms, texts and the order of checks are those of QEMU's ``qapi/misc-i386.json`` and ``target/i386/sev.c``.  QEMU's
decoder (``g_base64_decode``) skips every byte that is not Base64, so it never says no to a mangled packet; here only
white space is skipped, and the client learns of the rest before the packet's MAC fails.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sevplug.core.errors import LaunchRefused
from sevplug.core.launch import LaunchSecret, LaunchState
from sevplug.plugins.qmp.arguments import STRING, UINT64, Argument
from sevplug.plugins.qmp.errors import QmpError
from sevplug.plugins.qmp.registry import Command
from sevplug.plugins.sev_platform import platform_of
from sevplug.sevapi.context import SevContext
from sevplug.sevapi.encodings import decode_base64
from sevplug.sevapi.errors import FirmwareError
from sevplug.sevapi.state import GuestState
from sevplug.sevapi.status import Status, fw_error_to_str
from sevplug.sevapi.version import ApiVersion

if TYPE_CHECKING:
    from sevplug.core.machine import Machine

# What the kernel returns when the firmware refuses a command (Linux ``drivers/crypto/ccp/sev-dev.c``).
_EIO = 5
_MNONCE_SIZE = 16
_NO_REPORT = "Failed to query the attestation report length ret={} fw_err={} ({})"
_MEASURED = frozenset({LaunchState.SECRET, LaunchState.RUNNING})


def launch_of(machine: Machine) -> SevContext | None:
    """The context of the machine's launch if it is a SEV launch, else None."""
    context = machine.launch.context
    return context if isinstance(context, SevContext) else None


def query_sev(machine: Machine, _arguments: Mapping[str, Any]) -> dict[str, Any]:
    """``SevInfo``; without SEV, QEMU's zeros."""
    launch = launch_of(machine)
    api = launch.api if launch else ApiVersion(0, 0, 0)
    return {
        "enabled": launch is not None,
        "api-major": api.major,
        "api-minor": api.minor,
        "build-id": api.build,
        "state": machine.launch.state.value if launch else LaunchState.UNINIT.value,
        "sev-type": "sev",
        "policy": int(launch.policy) if launch else 0,
        "handle": launch.handle if launch else 0,
    }


def _query_launch_measure(machine: Machine, _arguments: Mapping[str, Any]) -> dict[str, str]:
    measurement = machine.launch.measurement
    if launch_of(machine) is None or measurement is None or machine.launch.state not in _MEASURED:
        raise QmpError("SEV launch measurement is not available")
    return {"data": base64.b64encode(measurement.blob).decode()}


def _query_capabilities(machine: Machine, _arguments: Mapping[str, Any]) -> dict[str, Any]:
    platform = platform_of(machine)
    if platform is None:
        # No certificates could be shown.
        raise QmpError("KVM not enabled" if launch_of(machine) is None else "SEV is not enabled in KVM")
    pdh, chain = platform.firmware.pdh_cert_export()
    return {
        "pdh": base64.b64encode(pdh).decode(),
        "cert-chain": base64.b64encode(chain).decode(),
        "cpu0-id": base64.b64encode(platform.firmware.get_id()).decode(),
        "cbitpos": platform.c_bit,
        "reduced-phys-bits": platform.reduced_bits,
    }


def _query_attestation_report(machine: Machine, arguments: Mapping[str, Any]) -> dict[str, str]:
    launch = launch_of(machine)
    if launch is None:
        raise QmpError("SEV is not enabled")
    mnonce = decode_base64(arguments["mnonce"])
    if mnonce is None:
        raise QmpError("SEV: failed to decode mnonce input")
    if len(mnonce) != _MNONCE_SIZE:
        raise QmpError(f"SEV: mnonce must be {_MNONCE_SIZE} bytes (got {len(mnonce)})")
    platform, measurement = platform_of(machine), machine.launch.measurement
    if platform is None or measurement is None:
        # No key signs reports; the firmware's word for a command it does not have.
        raise firmware_error(_NO_REPORT, Status.UNSUPPORTED)
    try:
        report = platform.firmware.attestation(mnonce, measurement.digest, launch.policy)
    except FirmwareError as error:
        raise firmware_error(_NO_REPORT, error.status) from None
    return {"data": report.to_base64()}


def _inject_launch_secret(machine: Machine, arguments: Mapping[str, Any]) -> None:
    if launch_of(machine) is None:
        raise QmpError("SEV not enabled for guest")
    state = machine.launch.state
    if state is not LaunchState.SECRET:
        raise QmpError(f"SEV: Not in correct state. (LSECRET) {_number(state):x}")
    header = decode_base64(arguments["packet-header"])
    if not header:
        raise QmpError("SEV: Failed to decode sequence header")
    secret = decode_base64(arguments["secret"])
    if not secret:
        raise QmpError("SEV: Failed to decode data")
    gpa = arguments.get("gpa")
    if gpa is not None and not machine.memory.holds(gpa, len(secret)):
        nowhere = machine.memory.find(gpa) is None
        reason = "No memory is mapped at address {:#x}" if nowhere else "Size of memory region at {:#x} exceeded."
        raise QmpError(f"SEV: Failed to calculate guest address: {reason.format(gpa)}")
    try:
        machine.inject_secret(LaunchSecret(header, secret, gpa))
    except LaunchRefused as refused:
        if refused.status is None:
            raise QmpError(str(refused)) from refused
        raise firmware_error("failed to inject secret ret={} fw_error={} '{}'", refused.status) from refused


def firmware_error(form: str, status: int) -> QmpError:
    """A refusal by the firmware: ``form`` takes the kernel's return value, the status and its words."""
    return QmpError("SEV: " + form.format(-_EIO, int(status), fw_error_to_str(status)))


def _number(state: LaunchState) -> int:
    """The launch state as the firmware numbers it."""
    return next(int(known) for known in GuestState if known.qmp_name == state.value)


COMMANDS = (
    Command("query-sev", query_sev),
    Command("query-sev-launch-measure", _query_launch_measure),
    Command("query-sev-capabilities", _query_capabilities),
    Command("query-sev-attestation-report", _query_attestation_report, (Argument("mnonce", STRING),)),
    Command(
        "sev-inject-launch-secret",
        _inject_launch_secret,
        (Argument("packet-header", STRING), Argument("secret", STRING), Argument("gpa", UINT64, optional=True)),
    ),
)
