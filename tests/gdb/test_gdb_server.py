"""The socket, acknowledgments, and options that cannot be honoured."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
from assembler import assemble
from guests import long64, real16
from qmp_support import Client
from remote_debugger import Debugger, debugged, with_gdb

from sevplug.core import events, result
from sevplug.core.config import BootImages, Image, MachineConfig
from sevplug.core.errors import ConfigError
from sevplug.core.machine import Machine
from sevplug.plugins import qmp
from sevplug.plugins.gdb.session import PACKET_SIZE

NOTHING = assemble(real16("nop"))


def test_packets_are_acknowledged_until_it_is_agreed_that_they_are_not(tmp_path: Path) -> None:
    with debugged(NOTHING, tmp_path) as guest, guest.debugger(no_ack=False) as debugger:
        debugger.send(b"$qC#b4")
        assert b"".join(debugger.byte() for _ in range(8)) == b"+$QC1#c5"
        debugger.send(b"+")
        assert debugger.ask(b"QStartNoAckMode") == b"OK"
        debugger.send(b"+$qC#b4")
        assert b"".join(debugger.byte() for _ in range(7)) == b"$QC1#c5"


def test_what_was_not_understood_is_asked_for_and_sent_again(tmp_path: Path) -> None:
    with debugged(NOTHING, tmp_path) as guest, guest.debugger(no_ack=False) as debugger:
        debugger.send(b"$qC#00")
        assert debugger.byte() == b"-"
        assert debugger.ask(b"qC") == b"QC1"
        debugger.send(b"-")
        assert debugger.packet() == b"QC1"


def test_a_packet_that_is_too_long_is_refused_and_the_next_is_not(tmp_path: Path) -> None:
    with debugged(NOTHING, tmp_path) as guest, guest.debugger() as debugger:
        size = (PACKET_SIZE - len(b"X4000,1000:")) // 2
        head = b"M4000,%x:" % size
        assert debugger.ask(head + b"00" * size) == b"OK"
        assert debugger.ask(b"M4000,4000:" + b"00" * 0x4000) == b"E16"
        assert debugger.ask(b"qC") == b"QC1"
        assert len(debugger.ask(b"m4000,ffffff")) == PACKET_SIZE


def test_a_second_debugger_is_sent_away_and_the_first_stays(tmp_path: Path) -> None:
    with debugged(NOTHING, tmp_path) as guest, guest.debugger() as debugger:
        with Debugger(guest.path, no_ack=False) as second:
            assert second.byte() == b""
        assert debugger.ask(b"qC") == b"QC1"


def test_a_debugger_comes_behind_another(tmp_path: Path) -> None:
    with debugged(NOTHING, tmp_path) as guest:
        for _ in range(3):
            with guest.next_debugger() as debugger:
                assert debugger.ask(b"qC") == b"QC1"


def test_what_happens_is_told(tmp_path: Path) -> None:
    with debugged(NOTHING, tmp_path) as guest:
        with guest.debugger() as debugger:
            debugger.start(b"c")
            assert debugger.packet()[:1] == b"O"
        guest.finish()
        told = [name for name, _fields in guest.board.events if name.startswith(("gdb.", "run."))]
        assert told == ["gdb.listening", "gdb.attached", events.RUN_RESUME, events.RUN_END]
        assert not guest.path.exists()


def test_tcp_on_a_port_of_the_systems_choice() -> None:
    config = MachineConfig(boot=BootImages(firmware=Image(NOTHING, "guest")), options={"gdb": "tcp:127.0.0.1:0"})
    with Machine(config, with_gdb()) as machine:
        _tcp, _host, port = machine.private["gdb"].address.split(":")  # type: ignore[attr-defined]
        socket.create_connection(("127.0.0.1", int(port)), timeout=5).close()


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ("1234", "--gdb 1234: expected unix:PATH or tcp:127.0.0.1:PORT"),
        ("tcp::1234", "--gdb tcp::1234: no host, expected a loopback address (127.0.0.1, ::1, localhost)"),
        ("tcp:0.0.0.0:1", "--gdb tcp:0.0.0.0:1: 0.0.0.0, expected a loopback address (127.0.0.1, ::1, localhost)"),
        ("unix:", "--gdb unix:: expected a path behind unix:"),
        ("unix:/nowhere/gdb", "--gdb unix:/nowhere/gdb: No such file or directory"),
        ("unix:/dev/null", "--gdb unix:/dev/null: the file exists and is no socket"),
        (
            "tcp:127.0.0.1:1,wait=on",
            "--gdb tcp:127.0.0.1:1,wait=on: only -S makes a guest wait for its debugger, expected wait=off",
        ),
    ],
)
def test_an_option_that_cannot_be_honoured_is_one_line(option: str, text: str) -> None:
    config = MachineConfig(boot=BootImages(firmware=Image(NOTHING, "guest")), options={"gdb": option})
    with pytest.raises(ConfigError) as refused:
        Machine(config, with_gdb())
    assert str(refused.value) == text


def test_a_port_in_use_is_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        option = f"tcp:127.0.0.1:{taken.getsockname()[1]}"
        config = MachineConfig(boot=BootImages(firmware=Image(NOTHING, "guest")), options={"gdb": option})
        with pytest.raises(ConfigError) as refused:
            Machine(config, with_gdb())
        assert str(refused.value) == f"--gdb {option}: Address already in use"


def test_a_qmp_client_sees_a_debugged_guest(tmp_path: Path) -> None:
    """Its status and events are those of QEMU, and steps are silent."""
    image = assemble(long64("mov al, 1; out 0x80, al"))
    options = {"qmp": f"unix:{tmp_path / 'qmp'}"}

    with debugged(image, tmp_path, qmp, options=options) as guest, Client(tmp_path / "qmp") as client:
        client.negotiate()
        with guest.debugger() as debugger:
            assert debugger.ask(b"Z0,fffffff0,1") == b"OK"
            debugger.start(b"c")
            assert json.loads(client.line())["event"] == "RESUME"
            assert json.loads(client.line())["event"] == "STOP"
            assert debugger.packet() == b"T05thread:01;"
            assert client.execute("query-status") == {"running": False, "status": "debug"}
            assert debugger.ask(b"s") == b"T05thread:01;"
            assert debugger.ask(b"D") == b"OK"
            assert json.loads(client.line())["event"] == "RESUME"
            assert json.loads(client.line())["event"] == "SHUTDOWN"
        assert guest.finish() == result.SHUTDOWN
