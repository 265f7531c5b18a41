"""What clients are told: replies and events, in which order, and what becomes of a client that fails or vanishes."""

from __future__ import annotations

import json
import socket
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from qmp_support import NEGOTIATE, Client, FakeMachine, Interrupt, plugin_manager, serving

from sevplug.core import events
from sevplug.core.errors import ConfigError, LaunchRefused
from sevplug.core.hookspecs import hookimpl
from sevplug.plugins.qmp.json_stream import Limits
from sevplug.plugins.qmp.server import QmpServer


def test_requests_before_the_negotiation_are_refused(tmp_path: Path) -> None:
    with serving(f"unix:{tmp_path}/q"), Client(tmp_path / "q") as client:
        client.line()
        client.send(b'{"execute":"query-status"}{"execute":"nope","id":7}')
        for line in (client.line(), client.line()):
            assert json.loads(line)["error"] == {
                "class": "CommandNotFound",
                "desc": "Expecting capabilities negotiation with 'qmp_capabilities'",
            }


def test_a_capability_that_is_not_offered_is_refused(tmp_path: Path) -> None:
    with serving(f"unix:{tmp_path}/q"), Client(tmp_path / "q") as client:
        client.line()
        assert client.refusal("qmp_capabilities", enable=["oob"]) == "Capability oob not available"
        assert client.refusal("qmp_capabilities", enable="oob") == (
            "Invalid parameter type for 'enable', expected: array"
        )
        assert client.refusal("qmp_capabilities", enable=[1]) == (
            "Invalid parameter type for 'enable[0]', expected: string"
        )
        assert client.execute("qmp_capabilities", enable=[]) == {}


def test_any_id_is_echoed(tmp_path: Path) -> None:
    with serving(f"unix:{tmp_path}/q"), Client(tmp_path / "q").negotiate() as client:
        for sent in (b"0", b"null", b"false", b'""', b"[1.5, []]", b'{"a": 1, "b": {}}', b'"\\u20AC"'):
            client.send(b'{"execute":"query-name","id":' + sent + b"}")
            assert client.line() == b'{"return": {}, "id": ' + sent + b"}\r\n"


def test_a_thousand_requests_in_one_write_are_answered_in_order(tmp_path: Path) -> None:
    with serving(f"unix:{tmp_path}/q"), Client(tmp_path / "q").negotiate() as client:
        client.send(b"".join(b'{"execute":"query-status","id":%d}' % number for number in range(1000)))
        assert [json.loads(client.line())["id"] for _ in range(1000)] == list(range(1000))


STREAM = (
    b"{'execute':'qmp_capabilities'}{\"execute\":\"stop\",\"id\":1} @@ {'execute':'query-status'}[]"
    b'{"execute":"query-version","id":"\xe2\x82\xac"}{"execute":1}{"execute":"query-sev"}\xff{"execute":"query-kvm"}'
)


@pytest.fixture(scope="module")
def shared_socket(tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    path = tmp_path_factory.mktemp("qmp") / "q"
    with serving(f"unix:{path}"):
        yield path


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(0, len(STREAM)), max_size=8))
def test_any_cutting_of_a_conversation_gets_the_same_replies(shared_socket: Path, cuts: list[int]) -> None:
    def talk(places: list[int]) -> bytes:
        with Client(shared_socket) as client:
            for start, end in zip([0, *places], [*places, len(STREAM)], strict=True):
                client.send(STREAM[start:end])
            return client.lines(10)

    assert talk(sorted(cuts)) == talk([])


def test_a_second_client_is_greeted_when_the_first_leaves(tmp_path: Path) -> None:
    with serving(f"unix:{tmp_path}/q"), Client(tmp_path / "q").negotiate() as first:
        second = Client(tmp_path / "q")
        first.execute("query-status")
        second.socket.settimeout(0.2)
        with pytest.raises(TimeoutError):
            second.line()
        second.socket.settimeout(10)
        first.close()
        second.negotiate()
        assert second.execute("query-name") == {}
        second.close()


def test_what_a_client_left_unfinished_is_not_the_next_ones(tmp_path: Path) -> None:
    with serving(f"unix:{tmp_path}/q"):
        with Client(tmp_path / "q").negotiate() as first:
            first.send(b'{"execute":"stop","arguments":{"x":[[["')
        with Client(tmp_path / "q").negotiate() as second:
            assert second.execute("query-name") == {}


def test_a_client_may_vanish_while_the_machine_works_for_it(tmp_path: Path) -> None:
    entered, leave = threading.Event(), threading.Event()

    def slow(_machine: object, _arguments: object) -> None:
        entered.set()
        leave.wait(10)

    class Slow:
        @hookimpl
        def add_qmp_commands(self, registry: object) -> None:
            from sevplug.plugins.qmp.registry import Command, Registry

            assert isinstance(registry, Registry)
            registry.add(Command("slow", slow))

    with serving(f"unix:{tmp_path}/q", Slow()) as machine:
        with Client(tmp_path / "q").negotiate() as first:
            first.send(b'{"execute":"slow"}{"execute":"cont"}')
            assert entered.wait(10)
        leave.set()
        with Client(tmp_path / "q").negotiate() as second:
            assert second.execute("query-name") == {}
            assert machine.ended is None


def test_a_client_that_stops_sending_still_gets_its_replies(tmp_path: Path) -> None:
    with serving(f"unix:{tmp_path}/q"), Client(tmp_path / "q") as client:
        client.send(NEGOTIATE + b'{"execute":"query-status"}')
        client.socket.shutdown(socket.SHUT_WR)
        client.lines(2)
        assert json.loads(client.line())["return"]["status"] == "prelaunch"
        assert client.line() == b""


def test_an_event_comes_before_the_reply_that_caused_it(tmp_path: Path) -> None:
    with serving(f"unix:{tmp_path}/q"), Client(tmp_path / "q").negotiate() as client:
        client.send(b'{"execute":"cont"}{"execute":"cont"}{"execute":"stop"}{"execute":"stop"}')
        told = [json.loads(client.line()) for _ in range(6)]
        assert [line.get("event", "return") for line in told] == [
            *("RESUME", "return", "return"),
            *("STOP", "return", "return"),
        ]


def test_only_a_client_that_has_negotiated_gets_events(tmp_path: Path) -> None:
    with serving(f"unix:{tmp_path}/q") as machine, Client(tmp_path / "q") as client:
        client.line()
        machine.control.submit(machine.resume).result(10)
        client.send(NEGOTIATE)
        assert client.line() == b'{"return": {}}\r\n'


def test_the_end_of_the_machine_is_told_and_the_connection_closed(tmp_path: Path) -> None:
    with serving(f"unix:{tmp_path}/q"), Client(tmp_path / "q").negotiate() as client:
        client.send(b'{"execute":"quit"}')
        shutdown = json.loads(client.line())
        assert (shutdown["event"], shutdown["data"]) == ("SHUTDOWN", {"guest": False, "reason": "host-qmp-quit"})
        assert client.line() == b'{"return": {}}\r\n'
        assert client.line() == b""


@pytest.mark.parametrize(
    ("ended", "guest", "reason"),
    [
        ("reset", True, "guest-reset"),
        ("fault", True, "guest-reset"),
        ("timeout", False, "host-signal"),
        ("halted", False, "host-error"),
    ],
)
def test_an_end_that_nobody_announced_is_told_too(tmp_path: Path, ended: str, guest: bool, reason: str) -> None:
    with serving(f"unix:{tmp_path}/q") as machine, Client(tmp_path / "q").negotiate() as client:

        def end() -> None:
            if ended == "reset":
                machine.notify(events.GUEST_RESET, guest=True, reason="guest-reset")
            machine.ended = ended

        machine.control.submit(end)
        shutdown = json.loads(client.line())
        assert (shutdown["event"], shutdown["data"]) == ("SHUTDOWN", {"guest": guest, "reason": reason})
        assert client.line() == b""


def test_what_the_core_refuses_is_an_error_reply(tmp_path: Path) -> None:
    def refuse() -> None:
        raise LaunchRefused("the launch cannot be finished: no reason at all")

    with serving(f"unix:{tmp_path}/q") as machine, Client(tmp_path / "q").negotiate() as client:
        machine.resume = refuse  # type: ignore[method-assign]
        assert client.refusal("cont") == "the launch cannot be finished: no reason at all"
        assert client.execute("query-status")["status"] == "prelaunch"


def test_a_fault_in_a_command_is_an_error_without_its_text_and_a_warning_with_it(tmp_path: Path) -> None:
    def fail() -> None:
        raise RuntimeError("key material")

    with serving(f"unix:{tmp_path}/q") as machine, Client(tmp_path / "q").negotiate() as client:
        machine.resume = fail  # type: ignore[method-assign]
        text = client.refusal("cont")
        assert text == "QMP command cont failed: RuntimeError"
        assert len(machine.warnings) == 1
        assert machine.warnings[0].startswith("QMP command cont failed: ")
        assert client.execute("query-name") == {}


def test_a_client_that_never_reads_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sevplug.plugins.qmp.server._UNREAD_LIMIT", 1000)
    with serving(f"unix:{tmp_path}/q") as machine, Client(tmp_path / "q").negotiate() as first:

        def tell_much() -> None:
            for _ in range(5_000):
                machine.notify(events.RUN_RESUME)

        machine.control.submit(tell_much).result(30)
        with Client(tmp_path / "q").negotiate() as second:  # greeted while the first holds its end open
            assert second.execute("query-name") == {}
        assert first.socket.fileno() >= 0


def test_an_interrupt_in_a_command_reaches_the_machine_and_costs_the_client_its_connection(tmp_path: Path) -> None:
    def interrupt() -> None:
        raise Interrupt

    with serving(f"unix:{tmp_path}/q") as machine:
        machine.resume = interrupt  # type: ignore[method-assign]
        with Client(tmp_path / "q").negotiate() as client:
            client.send(b'{"execute":"cont"}')
            assert client.line() == b""
        # The connection ends as soon as the command has failed; the machine goes on a little later.
        with Client(tmp_path / "q").negotiate() as client:
            assert client.execute("query-status")["running"] is False
        assert machine.interrupts == 1


def test_a_plug_in_brings_a_command(tmp_path: Path) -> None:
    class Brings:
        @hookimpl
        def add_qmp_commands(self, registry: object) -> None:
            from sevplug.plugins.qmp.arguments import INTEGER, Argument
            from sevplug.plugins.qmp.registry import Command, Registry

            assert isinstance(registry, Registry)
            double = Command("brings-double", lambda _machine, sent: 2 * sent["x"], (Argument("x", INTEGER),))
            registry.add(double)
            registry.add(Command("brings-nonsense", lambda _machine, _sent: object()))

    with serving(f"unix:{tmp_path}/q", Brings()), Client(tmp_path / "q").negotiate() as client:
        assert client.execute("brings-double", x=21) == 42
        assert client.refusal("brings-double") == "Parameter 'x' is missing"
        assert "not JSON" in client.refusal("brings-nonsense")
        assert {"name": "brings-double"} in client.execute("query-commands")


def test_a_command_of_a_known_name_is_refused() -> None:
    class Clashes:
        @hookimpl
        def add_qmp_commands(self, registry: object) -> None:
            from sevplug.plugins.qmp.registry import Command, Registry

            assert isinstance(registry, Registry)
            registry.add(Command("stop", lambda _machine, _sent: None))

    machine = FakeMachine(plugin_manager(Clashes()), "tcp:127.0.0.1:0")
    with pytest.raises(ConfigError, match="QMP command 'stop' is there twice"):
        machine.plugins.hook.machine_init(machine=machine)
    machine.close()


def test_every_command_is_listed(tmp_path: Path) -> None:
    with serving(f"unix:{tmp_path}/q"), Client(tmp_path / "q").negotiate() as client:
        listed = {command["name"] for command in client.execute("query-commands")}
    assert listed == {
        *("qmp_capabilities", "query-commands", "query-version", "query-name", "query-kvm", "query-status"),
        *("query-cpus-fast", "cont", "stop", "quit", "system_reset", "human-monitor-command"),
        *("query-sev", "query-sev-launch-measure", "query-sev-capabilities", "query-sev-attestation-report"),
        *("sev-inject-launch-secret", "memsave", "pmemsave", "dump-guest-memory"),
        *("sevplug-debug-read", "sevplug-debug-write", "sevplug-query-memory", "sevplug-snapshot-save"),
    }


def test_a_request_past_the_limit_ends_in_an_error_not_in_the_server(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(QmpServer.__init__, "__defaults__", (Limits(token_size=1000),))
        with serving(f"unix:{tmp_path}/q"), Client(tmp_path / "q").negotiate() as client:
            client.send(b'{"execute":"' + b"x" * 100_000)
            assert json.loads(client.line())["error"]["desc"] == "JSON token size limit exceeded"
            client.send(b"\xff")
            assert client.execute("query-name") == {}
