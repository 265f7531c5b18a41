"""The few commands of the monitor for people."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from qmp_support import Client, FakeMachine, serving

from sevplug.core.errors import LaunchRefused
from sevplug.core.launch import LaunchState
from sevplug.sevapi.context import SevContext
from sevplug.sevapi.keys import TransportKeys
from sevplug.sevapi.policy import Policy
from sevplug.sevapi.version import ApiVersion


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[FakeMachine]:
    with serving(f"unix:{tmp_path}/q") as machine:
        yield machine


@pytest.fixture
def client(machine: FakeMachine, tmp_path: Path) -> Iterator[Client]:
    with Client(tmp_path / "q").negotiate() as client:
        yield client


def printed(client: Client, line: str) -> str:
    text = client.execute("human-monitor-command", command_line=line)
    assert isinstance(text, str)
    assert text.count("\r\n") == text.count("\n")
    return text.replace("\r\n", "\n")


def test_status_follows_the_machine(client: Client) -> None:
    assert printed(client, "info status") == "VM status: paused (prelaunch)\n"
    assert printed(client, "cont") == ""
    assert printed(client, " info  status ") == "VM status: running\n"
    assert printed(client, "stop") == ""
    assert printed(client, "info status") == "VM status: paused\n"


def test_a_plain_guest_has_no_sev(client: Client) -> None:
    assert printed(client, "info sev") == "SEV is not enabled\n"


def test_a_sev_guest_shows_its_launch(client: Client, machine: FakeMachine) -> None:
    keys = TransportKeys(tek=bytes(16), tik=bytes(16))
    machine.launch.context = SevContext(Policy(0x1), ApiVersion(1, 55, 24), 0, keys)
    machine.launch.state = LaunchState.SECRET
    assert printed(client, "info sev") == (
        "SEV type: sev\nstate: launch-secret\nbuild: 24\napi version: 1.55\nhandle: 0\ndebug: off\nkey-sharing: on\n"
    )


def test_the_version_is_printed_as_qemu_prints_it(client: Client) -> None:
    assert printed(client, "info version") == "11.1.0sevplug 0.1.0\n"


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("", ""),
        ("x", "unknown command: 'x'\n"),
        ("x y", "unknown command: 'x'\n"),
        ("info roms", "unknown command: 'info roms'\n"),
        ("stop now", "stop: extraneous characters at the end of line\n"),
    ],
)
def test_a_line_that_is_no_command_says_so(client: Client, line: str, text: str) -> None:
    assert printed(client, line) == text


def test_help_lists_every_command(client: Client) -> None:
    listed = printed(client, "help")
    assert all(f"{name}  -- " in listed for name in ("cont", "stop", "quit", "help", "info sev", "system_reset"))
    assert printed(client, "info").startswith("info sev  -- ")
    assert printed(client, "?") == listed


def test_what_the_core_refuses_is_printed(client: Client, machine: FakeMachine) -> None:
    def refuse() -> None:
        raise LaunchRefused("no")

    machine.resume = refuse  # type: ignore[method-assign]
    assert printed(client, "cont") == "Error: no\n"


def test_quit_ends_the_machine(client: Client, machine: FakeMachine) -> None:
    client.send(b'{"execute":"human-monitor-command","arguments":{"command-line":"quit"}}')
    assert b"SHUTDOWN" in client.line()
    assert client.line() == b'{"return": ""}\r\n'
    assert machine.ended == "quit"
