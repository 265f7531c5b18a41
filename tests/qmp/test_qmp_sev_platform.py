"""A guest on an emulated platform: the owner's session opens, certificates and report verify with the owner's code."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from qmp_support import MIB, Client, plugin_manager, real_machine, spinning_guest

from sevplug.core.config import MachineConfig, ObjectSpec
from sevplug.core.errors import ConfigError, LaunchRefused
from sevplug.core.machine import Machine
from sevplug.platform.firmware import new_platform
from sevplug.platform.randomness import SeededRandom
from sevplug.platform.root import emulated_root
from sevplug.platform.store import PlatformStore
from sevplug.plugins.measurement import MeasurementPlugin
from sevplug.plugins.sev import SevPlugin
from sevplug.sevapi.certificates import SevCertificate
from sevplug.sevapi.chain import PlatformChain, check_chain, check_platform_chain
from sevplug.sevapi.measurement import LaunchMeasurement, measure
from sevplug.sevapi.policy import Policy
from sevplug.sevapi.report import AttestationReport, check_report
from sevplug.sevapi.session import OwnerSession, make_session
from sevplug.sevapi.status import Status

POLICY = Policy(1)
MNONCE = bytes(range(16))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A new platform, in a folder."""
    new_platform(PlatformStore(tmp_path / "platform"), random=SeededRandom(b"qmp"))
    return tmp_path / "platform"


def pdh_of(folder: Path) -> SevCertificate:
    identity = PlatformStore(folder).load().identity
    assert identity is not None
    return identity.chain(PlatformStore(folder).load().chip.cek).pdh


def session_files(folder: Path, session: OwnerSession) -> dict[str, str]:
    """The owner's files, as QEMU's object takes them."""
    (folder / "godh.b64").write_bytes(base64.encodebytes(session.certificate.to_bytes()))
    (folder / "session.b64").write_text(session.session.to_base64())
    return {"dh-cert-file": str(folder / "godh.b64"), "session-file": str(folder / "session.b64")}


def settings(folder: Path, kind: str = "sev-guest", **properties: str) -> dict[str, Any]:
    named = {name.replace("_", "-"): value for name, value in properties.items()}
    spec = ObjectSpec(kind, "sev0", {"cbitpos": "47", "reduced-phys-bits": "1", "policy": "0x1", **named})
    return {"boot": spinning_guest(), "memory": MIB, "objects": (spec,), "options": {"platform": str(folder)}}


@contextmanager
def platform_guest(
    tmp_path: Path, folder: Path, kind: str = "sev-guest", **properties: str
) -> Iterator[tuple[Client, Machine]]:
    with (
        real_machine(
            f"unix:{tmp_path}/q", SevPlugin(), MeasurementPlugin(), **settings(folder, kind, **properties)
        ) as machine,
        Client(tmp_path / "q").negotiate() as client,
    ):
        yield client, machine


@pytest.mark.parametrize("kind", ["sev-guest", "sev-emulated"])
def test_a_whole_conversation_with_the_platform(tmp_path: Path, folder: Path, kind: str) -> None:
    with platform_guest(tmp_path, folder) as (client, _machine):
        told = client.execute("query-sev-capabilities")
    assert (told["cbitpos"], told["reduced-phys-bits"], len(base64.b64decode(told["cpu0-id"]))) == (47, 1, 64)
    chain = PlatformChain.from_export(base64.b64decode(told["pdh"]), base64.b64decode(told["cert-chain"]))
    signed = PlatformStore(folder).load().chip.cek
    full = PlatformChain.from_export(
        chain.pdh.to_bytes(), chain.pek.to_bytes() + chain.oca.to_bytes() + signed.to_bytes()
    )
    check_platform_chain(full)
    check_chain(full, emulated_root())

    session = make_session(chain.pdh, POLICY)
    with platform_guest(tmp_path, folder, kind, **session_files(tmp_path, session)) as (client, machine):
        blob = LaunchMeasurement.from_blob(base64.b64decode(client.execute("query-sev-launch-measure")["data"]))
        launched = machine.launch.measurement
        assert launched is not None
        api = PlatformStore(folder).load().api
        assert measure(session.keys.tik, api, POLICY, launched.digest, blob.mnonce) == blob
        mnonce = base64.b64encode(MNONCE).decode()
        data = client.execute("query-sev-attestation-report", mnonce=mnonce)["data"]
    report = AttestationReport.from_bytes(base64.b64decode(data))
    check_report(report, chain.pek)
    assert (report.mnonce, report.digest, report.policy) == (MNONCE, launched.digest, POLICY)


@pytest.mark.parametrize(
    ("name", "at", "status"),
    [
        ("session-file", 0, Status.BAD_MEASUREMENT),  # the nonce
        ("session-file", 20, Status.BAD_MEASUREMENT),  # the wrapped keys
        ("session-file", 70, Status.BAD_MEASUREMENT),  # their MAC
        ("session-file", 127, Status.BAD_MEASUREMENT),  # the policy's MAC
        ("dh-cert-file", 8, Status.INVALID_CERTIFICATE),  # its usage
    ],
)
def test_a_wrong_byte_gives_the_firmwares_status(
    tmp_path: Path, folder: Path, name: str, at: int, status: Status
) -> None:
    files = session_files(tmp_path, make_session(pdh_of(folder), POLICY))
    data = bytearray(base64.b64decode(Path(files[name]).read_bytes()))
    data[at] ^= 1
    Path(files[name]).write_bytes(base64.b64encode(data))
    with Machine(MachineConfig(**settings(folder, **files)), plugin_manager(SevPlugin())) as machine:
        with pytest.raises(LaunchRefused) as refused:
            machine.start_launch()
        assert refused.value.status == int(status)
        assert machine.launch.state.value == "uninit"


def test_a_session_for_another_policy_is_refused(tmp_path: Path, folder: Path) -> None:
    files = session_files(tmp_path, make_session(pdh_of(folder), Policy(0)))
    says = "LAUNCH_START: session: the policy's MAC is not that of policy 0x1"
    with (
        Machine(MachineConfig(**settings(folder, **files)), plugin_manager(SevPlugin())) as machine,
        pytest.raises(LaunchRefused, match=says),
    ):
        machine.start_launch()


def test_half_a_session_is_refused(tmp_path: Path, folder: Path) -> None:
    files = session_files(tmp_path, make_session(pdh_of(folder), POLICY))
    del files["dh-cert-file"]
    with Machine(MachineConfig(**settings(folder, **files)), plugin_manager(SevPlugin())) as machine:
        with pytest.raises(LaunchRefused) as refused:
            machine.start_launch()
        assert refused.value.status == int(Status.INVALID_LENGTH)


def refusal(config: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as refused:
        Machine(MachineConfig(**config), plugin_manager(SevPlugin())).close()
    return str(refused.value)


def test_what_cannot_be_used_is_one_line(tmp_path: Path, folder: Path) -> None:
    files = session_files(tmp_path, make_session(pdh_of(folder), POLICY))
    config = settings(folder, **files)
    assert refusal(config | {"options": {}}) == (
        "object id=sev0: session-file, dh-cert-file: a session is for one platform, expected --platform too"
    )
    nowhere = tmp_path / "nowhere"
    assert refusal(config | {"options": {"platform": str(nowhere)}}) == (
        f"--platform: {nowhere}: no platform in it, expected emulated-platform.json"
    )
    (tmp_path / "session.b64").write_text("%%%")
    assert refusal(settings(folder, **files)) == (
        f"object sev-guest (id=sev0): session-file: {tmp_path}/session.b64: expected base64"
    )
    (tmp_path / "tik").write_bytes(bytes(16))
    assert refusal(settings(folder, "sev-emulated", tik=str(tmp_path / "tik"), **files)).endswith("expected base64")
    (tmp_path / "session.b64").write_text("AAAA")
    assert refusal(settings(folder, "sev-emulated", tik=str(tmp_path / "tik"), **files)) == (
        "object sev-emulated (id=sev0): tik: the keys come in the session, expected no tik"
    )
    assert refusal(settings(folder, tik=str(tmp_path / "tik"))) == "Property 'sev-guest.tik' not found"


def test_a_guest_of_hardwares_object_without_a_session_has_keys_that_nobody_knows(folder: Path) -> None:
    config = settings(folder, sev_device="/dev/sev", handle="0")
    keys = []
    for options in ({"platform": str(folder)}, {}):
        with Machine(MachineConfig(**config | {"options": options}), plugin_manager(SevPlugin())) as machine:
            machine.start_launch()
            keys.append(machine.launch.context.keys)  # type: ignore[attr-defined]
    assert len({bytes(16), *(key.tik for key in keys), *(key.tek for key in keys)}) == 5
