"""The server and its socket: who may connect, who waits, who is told what, and what is left behind."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from qmp_support import GREETING, NEGOTIATE, Client, FakeMachine, Interrupt, plugin_manager, serving

from sevplug.core import events
from sevplug.core.errors import ConfigError, LaunchRefused
from sevplug.core.hookspecs import hookimpl
from sevplug.plugins.qmp.json_stream import Limits
from sevplug.plugins.qmp.server import QmpServer


def refused(option: str) -> str:
    """The line a machine with this option ends in."""
    machine = FakeMachine(plugin_manager(), option)
    with pytest.raises(ConfigError) as error:
        machine.plugins.hook.machine_init(machine=machine)
    machine.close()
    assert "\n" not in str(error.value)
    return str(error.value)


def test_the_socket_is_for_its_owner_only_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with serving(f"unix:{tmp_path}/q"):
            mode = os.lstat(tmp_path / "q").st_mode
    finally:
        os.umask(before)
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600


def test_the_socket_is_never_wider_not_even_at_the_moment_it_appears(tmp_path: Path) -> None:
    seen: list[int] = []

    class Watching(socket.socket):
        def bind(self, address: str) -> None:
            super().bind(address)
            seen.append(stat.S_IMODE(os.lstat(address).st_mode))

    before = os.umask(0)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("sevplug.board.chardev.sockets.socket.socket", Watching)
            with serving(f"unix:{tmp_path}/q"):
                pass
    finally:
        os.umask(before)
    assert seen == [0o600]


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    assert refused(f"unix:{tmp_path}/no/q") == f"--qmp unix:{tmp_path}/no/q: No such file or directory"


def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "q").write_text("precious")
    assert refused(f"unix:{tmp_path}/q").endswith("the file exists and is no socket")
    assert (tmp_path / "q").read_text() == "precious"


def test_a_live_socket_is_left_alone(tmp_path: Path) -> None:
    with serving(f"unix:{tmp_path}/q"):
        assert refused(f"unix:{tmp_path}/q").endswith("in use by another program")
        with Client(tmp_path / "q") as client:
            assert client.line() == GREETING


def test_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(tmp_path / "q"))
    with serving(f"unix:{tmp_path}/q"), Client(tmp_path / "q") as client:
        assert client.line() == GREETING


def test_the_socket_is_gone_when_the_machine_is(tmp_path: Path) -> None:
    with serving(f"unix:{tmp_path}/q"):
        assert (tmp_path / "q").exists()
    assert not (tmp_path / "q").exists()


def test_anothers_socket_of_the_same_name_is_not_removed(tmp_path: Path) -> None:
    with serving(f"unix:{tmp_path}/q"):
        (tmp_path / "q").unlink()
        (tmp_path / "q").write_text("somebody else's")
    assert (tmp_path / "q").read_text() == "somebody else's"


def test_a_free_port_is_found_and_told() -> None:
    with serving("tcp:127.0.0.1:0") as machine:
        address = machine.private["qmp"].address  # type: ignore[attr-defined]
        host, port = address.removeprefix("tcp:").rsplit(":", 1)
        assert int(port) > 0
        with socket.create_connection((host, int(port)), timeout=10) as client:
            assert client.makefile("rb").readline() == GREETING


def test_a_port_in_use_is_refused() -> None:
    with serving("tcp:127.0.0.1:0") as machine:
        address = machine.private["qmp"].address  # type: ignore[attr-defined]
        assert refused(address) == f"--qmp {address}: Address already in use"


def test_where_it_listens_is_told_as_a_moment_of_the_machine(tmp_path: Path) -> None:
    told = []

    class Listener:
        @hookimpl
        def notify(self, event: str, fields: dict[str, object]) -> None:
            told.append((event, dict(fields)))

    with serving(f"unix:{tmp_path}/q", Listener()):
        pass
    assert ("qmp.listening", {"address": f"unix:{tmp_path}/q"}) in told


def test_a_machine_without_the_option_serves_nobody() -> None:
    machine = FakeMachine(plugin_manager(), "")
    machine.config = type(machine.config)()
    machine.plugins.hook.machine_init(machine=machine)
    machine.notify(events.MACHINE_BUILT)
    machine.notify(events.RUN_RESUME)
    machine.close()
    assert machine.private == {}


def test_with_wait_the_machine_starts_when_a_client_has_come(tmp_path: Path) -> None:
    class Listener:
        @hookimpl
        def notify(self, event: str) -> None:
            if event == "qmp.waiting":
                waiting.set()

    started, waiting = threading.Event(), threading.Event()

    def start() -> None:
        with serving(f"unix:{tmp_path}/q,server=on,wait=on", Listener()):
            started.set()

    thread = threading.Thread(target=start)
    thread.start()
    try:
        assert waiting.wait(10)
        assert not started.wait(0.1)
    finally:
        with Client(tmp_path / "q") as client:
            assert client.line() == GREETING
            assert started.wait(10)
    thread.join()


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


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
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
        *("sevplug-debug-read", "sevplug-debug-write", "sevplug-query-memory"),
    }


def test_a_request_past_the_limit_ends_in_an_error_not_in_the_server(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(QmpServer.__init__, "__defaults__", (Limits(token_size=1000),))
        with serving(f"unix:{tmp_path}/q"), Client(tmp_path / "q").negotiate() as client:
            client.send(b'{"execute":"' + b"x" * 100_000)
            assert json.loads(client.line())["error"]["desc"] == "JSON token size limit exceeded"
            client.send(b"\xff")
            assert client.execute("query-name") == {}


def test_the_option_is_there_for_commands_that_build_a_machine() -> None:
    import click

    command = click.Command("run", params=[])
    plugin_manager().hook.add_options(command=command)
    assert [parameter.name for parameter in command.params] == ["qmp"]
    context = command.make_context("run", ["--qmp", "unix:q"])
    assert context.params == {"qmp": "unix:q"}


def test_the_plug_in_costs_no_event_loop_until_it_is_used() -> None:
    code = "import sys, sevplug.plugins.qmp; print([m for m in ('asyncio', 'click', 'socket') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
