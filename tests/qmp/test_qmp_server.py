"""The server's socket and its option: who may connect, who waits, and what is left behind."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from qmp_support import GREETING, Client, FakeMachine, plugin_manager, serving

from sevplug.core import events
from sevplug.core.errors import ConfigError
from sevplug.core.hookspecs import hookimpl


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
