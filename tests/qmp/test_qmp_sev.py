"""The commands about SEV, asked of a guest in each state of its launch."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest
from qmp_support import MIB, Client, FakeMachine, serving

from sevplug.core.errors import LaunchRefused
from sevplug.core.launch import LaunchMeasurement, LaunchSecret, LaunchState
from sevplug.sevapi.context import SevContext
from sevplug.sevapi.keys import TransportKeys
from sevplug.sevapi.policy import Policy
from sevplug.sevapi.status import Status
from sevplug.sevapi.version import ApiVersion

BLOB = bytes(range(48))
HEADER, SECRET = base64.b64encode(b"h" * 52).decode(), base64.b64encode(b"s" * 32).decode()


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[FakeMachine]:
    """A SEV guest that has been measured and not run."""
    with serving(f"unix:{tmp_path}/q") as machine:
        keys = TransportKeys(tek=bytes(16), tik=bytes(16))
        machine.launch.context = SevContext(Policy(0x5), ApiVersion(1, 55, 24), 7, keys)
        machine.launch.state = LaunchState.SECRET
        machine.launch.measurement = LaunchMeasurement(bytes(32), BLOB)
        yield machine


@pytest.fixture
def client(machine: FakeMachine, tmp_path: Path) -> Iterator[Client]:
    with Client(tmp_path / "q").negotiate() as client:
        yield client


def test_a_sev_guest_tells_its_version_policy_and_state(client: Client, machine: FakeMachine) -> None:
    client.send(b'{"execute":"query-sev"}')
    assert client.line() == (
        b'{"return": {"enabled": true, "api-minor": 55, "handle": 7, "state": "launch-secret", "api-major": 1, '
        b'"sev-type": "sev", "build-id": 24, "policy": 5}}\r\n'
    )
    machine.launch.state = LaunchState.RUNNING
    assert client.execute("query-sev")["state"] == "running"


def test_a_launch_of_another_kind_is_no_sev_launch(client: Client, machine: FakeMachine) -> None:
    machine.launch.context = object()
    assert client.execute("query-sev")["enabled"] is False
    assert client.refusal("sev-inject-launch-secret", packet_header=HEADER, secret=SECRET) == (
        "SEV not enabled for guest"
    )


def test_the_measurement_is_there_from_launch_secret_on(client: Client, machine: FakeMachine) -> None:
    expected = {"data": base64.b64encode(BLOB).decode()}
    assert client.execute("query-sev-launch-measure") == expected
    machine.launch.state = LaunchState.RUNNING
    assert client.execute("query-sev-launch-measure") == expected
    machine.launch.state = LaunchState.UPDATE
    assert client.refusal("query-sev-launch-measure") == "SEV launch measurement is not available"


def test_a_guest_that_was_not_measured_has_no_measurement(client: Client, machine: FakeMachine) -> None:
    machine.launch.measurement = None
    assert client.refusal("query-sev-launch-measure") == "SEV launch measurement is not available"


def test_there_are_no_platform_certificates(client: Client) -> None:
    assert client.refusal("query-sev-capabilities") == "SEV is not enabled in KVM"


@pytest.mark.parametrize(
    ("mnonce", "text"),
    [
        ("!", "SEV: failed to decode mnonce input"),
        ("é", "SEV: failed to decode mnonce input"),
        ("aaaa", "SEV: mnonce must be 16 bytes (got 3)"),
        ("", "SEV: mnonce must be 16 bytes (got 0)"),
        (
            base64.b64encode(bytes(16)).decode(),
            "SEV: Failed to query the attestation report length ret=-5 fw_err=21 (Feature not supported)",
        ),
    ],
)
def test_an_attestation_report_is_refused(client: Client, mnonce: str, text: str) -> None:
    assert client.refusal("query-sev-attestation-report", mnonce=mnonce) == text


def test_a_packet_reaches_the_machine_decoded(client: Client, machine: FakeMachine) -> None:
    taken: list[LaunchSecret] = []
    machine.on_inject = lambda packet: taken.append(packet) or 0x1000
    assert client.execute("sev-inject-launch-secret", packet_header=HEADER, secret=SECRET) == {}
    assert client.execute("sev-inject-launch-secret", packet_header=HEADER, secret=SECRET, gpa=0x2000) == {}
    # A file's line ends do no harm, and no other white space does.
    split = f"{HEADER[:10]}\n{HEADER[10:20]}\t \v\f{HEADER[20:]}\r\n"
    assert client.execute("sev-inject-launch-secret", packet_header=split, secret=SECRET + "\n") == {}
    assert [packet.gpa for packet in taken] == [None, 0x2000, None]
    assert all(packet.header == b"h" * 52 and packet.payload == b"s" * 32 for packet in taken)


def test_the_largest_packet_is_taken(client: Client, machine: FakeMachine) -> None:
    sizes: list[int] = []
    machine.on_inject = lambda packet: sizes.append(len(packet.payload)) or 0
    largest = base64.b64encode(bytes(16384)).decode()
    assert client.execute("sev-inject-launch-secret", packet_header=HEADER, secret=largest) == {}
    assert sizes == [16384]


@pytest.mark.parametrize(
    ("state", "number"), [(LaunchState.UNINIT, 0), (LaunchState.UPDATE, 1), (LaunchState.RUNNING, 3)]
)
def test_a_secret_is_taken_in_one_state_only(
    client: Client, machine: FakeMachine, state: LaunchState, number: int
) -> None:
    machine.launch.state = state
    text = client.refusal("sev-inject-launch-secret", packet_header=HEADER, secret=SECRET)
    assert text == f"SEV: Not in correct state. (LSECRET) {number}"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"packet_header": "", "secret": SECRET}, "SEV: Failed to decode sequence header"),
        ({"packet_header": "%%%%", "secret": SECRET}, "SEV: Failed to decode sequence header"),
        ({"packet_header": "AAA", "secret": SECRET}, "SEV: Failed to decode sequence header"),
        ({"packet_header": HEADER, "secret": ""}, "SEV: Failed to decode data"),
        ({"packet_header": HEADER, "secret": "AAAAA"}, "SEV: Failed to decode data"),
        ({"packet_header": HEADER}, "Parameter 'secret' is missing"),
        ({"packet_header": HEADER, "secret": None}, "Invalid parameter type for 'secret', expected: string"),
        ({"packet_header": HEADER, "secret": SECRET, "gpa": "0x1000"}, "Parameter 'gpa' expects uint64"),
        ({"packet_header": HEADER, "secret": SECRET, "gpa": 1.5}, "Parameter 'gpa' expects uint64"),
        ({"packet_header": HEADER, "secret": SECRET, "gpa": True}, "Parameter 'gpa' expects uint64"),
        (
            {"packet_header": HEADER, "secret": SECRET, "gpa": -4096},
            "SEV: Failed to calculate guest address: No memory is mapped at address 0xfffffffffffff000",
        ),
        (
            {"packet_header": HEADER, "secret": SECRET, "gpa": MIB - 16},
            "SEV: Failed to calculate guest address: Size of memory region at 0xffff0 exceeded.",
        ),
    ],
)
def test_a_packet_that_makes_no_sense_does_not_reach_the_machine(
    client: Client, machine: FakeMachine, arguments: dict[str, object], text: str
) -> None:
    machine.on_inject = lambda _packet: pytest.fail("it did")
    assert client.refusal("sev-inject-launch-secret", **arguments) == text


@pytest.mark.parametrize(
    ("refused", "text"),
    [
        (
            LaunchRefused("SEV: no secret area found in OVMF, gpa must be specified."),
            "SEV: no secret area found in OVMF, gpa must be specified.",
        ),
        (
            LaunchRefused("the MAC is wrong", Status.BAD_MEASUREMENT),
            "SEV: failed to inject secret ret=-5 fw_error=11 'Bad measurement'",
        ),
        (
            LaunchRefused("the length is wrong", Status.INVALID_LENGTH),
            "SEV: failed to inject secret ret=-5 fw_error=4 'Buffer too small'",
        ),
        (LaunchRefused("?", 0x99), "SEV: failed to inject secret ret=-5 fw_error=153 'unknown error'"),
    ],
)
def test_what_the_firmware_refuses_is_told_in_qemus_words(
    client: Client, machine: FakeMachine, refused: LaunchRefused, text: str
) -> None:
    def refuse(_packet: LaunchSecret) -> int:
        raise refused

    machine.on_inject = refuse
    assert client.refusal("sev-inject-launch-secret", packet_header=HEADER, secret=SECRET) == text
    assert machine.warnings == []
