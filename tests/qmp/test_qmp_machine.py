"""The plug-in on a real machine, from its construction to its end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from qmp_support import MIB, Client, plugin_manager, real_machine, spinning_guest

from sevplug.core.config import MachineConfig
from sevplug.core.errors import ConfigError, PluginError
from sevplug.core.hookspecs import hookimpl
from sevplug.core.machine import Machine


def test_a_guest_that_spins_can_be_stopped_asked_and_let_go(tmp_path: Path) -> None:
    with real_machine(f"unix:{tmp_path}/q"), Client(tmp_path / "q").negotiate() as client:
        for _ in range(3):
            client.execute("cont")
            assert client.execute("query-status") == {"status": "running", "running": True}
            client.execute("stop")
            assert client.execute("query-status") == {"status": "paused", "running": False}


def test_a_running_guest_can_be_reset(tmp_path: Path) -> None:
    with real_machine(f"unix:{tmp_path}/q"), Client(tmp_path / "q").negotiate() as client:
        client.execute("cont")
        client.send(b'{"execute":"system_reset"}')
        event = json.loads(client.line())
        assert (event["event"], event["data"]) == ("RESET", {"guest": False, "reason": "host-qmp-system-reset"})
        assert client.line() == b'{"return": {}}\r\n'
        assert client.execute("query-status")["running"] is True


def test_a_machine_that_times_out_says_goodbye(tmp_path: Path) -> None:
    option = f"unix:{tmp_path}/q"
    with (
        Machine(MachineConfig(boot=spinning_guest(), memory=MIB, options={"qmp": option}), plugin_manager()) as machine,
        Client(tmp_path / "q") as client,
    ):
        client.send(b'{"execute":"qmp_capabilities"}')
        client.lines(2)
        assert machine.run(timeout=0.3).result == "timeout"
        lines = [json.loads(line) for line in iter(client.line, b"")]
        assert [line["event"] for line in lines] == ["RESUME", "SHUTDOWN"]
        assert not (tmp_path / "q").exists()


def test_a_machine_that_never_runs_leaves_no_socket(tmp_path: Path) -> None:
    settings = MachineConfig(boot=spinning_guest(), memory=MIB, options={"qmp": f"unix:{tmp_path}/q"})
    with Machine(settings, plugin_manager()), Client(tmp_path / "q") as client:
        client.line()
        client.send(b'{"execute":"qmp_capabilities"}{"execute":"query-status"}')  # nobody will answer the second
        assert client.line() == b'{"return": {}}\r\n'
    assert list(tmp_path.iterdir()) == []


def test_a_machine_that_cannot_be_built_leaves_no_socket(tmp_path: Path) -> None:
    class Refuses:
        @hookimpl
        def add_devices(self) -> None:
            raise ConfigError("no")

    settings = MachineConfig(boot=spinning_guest(), memory=MIB, options={"qmp": f"unix:{tmp_path}/q"})
    with pytest.raises(ConfigError, match="no"):
        Machine(settings, plugin_manager(Refuses()))
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_option_ends_the_construction(tmp_path: Path) -> None:
    settings = MachineConfig(boot=spinning_guest(), memory=MIB, options={"qmp": "tcp:0.0.0.0:1"})
    with pytest.raises(ConfigError, match="expected a loopback address"):
        Machine(settings, plugin_manager())


def test_a_plug_in_that_brings_commands_is_named_when_it_fails(tmp_path: Path) -> None:
    class Fails:
        @hookimpl
        def add_qmp_commands(self) -> None:
            raise ValueError("a fault of its own")

    settings = MachineConfig(boot=spinning_guest(), memory=MIB, options={"qmp": f"unix:{tmp_path}/q"})
    with pytest.raises(PluginError, match=r"a fault of its own"):
        Machine(settings, plugin_manager(Fails()))
    assert list(tmp_path.iterdir()) == []
