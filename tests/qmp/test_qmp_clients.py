"""QEMU's own clients (PyPI's qemu.qmp) drive a real machine."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from qmp_support import real_machine

pytest.importorskip("qemu.qmp", reason="qemu.qmp is missing: install it from PyPI (extra test does)")

from qemu.qmp import EventListener, ExecuteError, QMPClient
from qemu.qmp.legacy import QEMUMonitorProtocol, QMPError


def test_the_async_client_negotiates_executes_and_hears_events(tmp_path: Path) -> None:
    async def talk() -> None:
        client = QMPClient("test")
        await client.connect(str(tmp_path / "q"))
        assert client.greeting is not None
        assert client.greeting.QMP.version["qemu"]["major"] == 11
        assert await client.execute("query-status") == {"status": "prelaunch", "running": False}
        with pytest.raises(ExecuteError, match="Parameter 'mnonce' is missing"):
            await client.execute("query-sev-attestation-report")
        listener = EventListener(("RESUME", "STOP"))
        with client.listen(listener):
            await client.execute("cont")
            await client.execute("stop")
            assert [(await listener.get())["event"] for _ in range(2)] == ["RESUME", "STOP"]
        # Many requests under way at once: the client tells their replies apart by id.
        states = await asyncio.gather(*(client.execute("query-status") for _ in range(50)))
        assert states == [{"status": "paused", "running": False}] * 50
        await client.disconnect()

    with real_machine(f"unix:{tmp_path}/q"):
        asyncio.run(asyncio.wait_for(talk(), 30))


def test_the_async_client_may_come_again_and_again(tmp_path: Path) -> None:
    async def talk() -> None:
        for _ in range(5):
            client = QMPClient()
            await client.connect(str(tmp_path / "q"))
            assert await client.execute("query-name") == {}
            await client.disconnect()

    with real_machine(f"unix:{tmp_path}/q"):
        asyncio.run(asyncio.wait_for(talk(), 30))


def test_the_legacy_client_works_over_a_socket_and_a_port(tmp_path: Path) -> None:
    for option in (f"unix:{tmp_path}/q", "tcp:127.0.0.1:0"):
        with real_machine(option) as machine:
            kind, _, where = machine.private["qmp"].address.partition(":")  # type: ignore[attr-defined]
            host, _, port = where.rpartition(":")
            client = QEMUMonitorProtocol(where if kind == "unix" else (host, int(port)))
            client.settimeout(30)
            client.connect()
            assert client.cmd("query-version")["package"].startswith("sevplug ")
            assert client.cmd("query-cpus-fast")[0]["target"] == "x86_64"
            assert client.cmd_raw("nope")["error"]["class"] == "CommandNotFound"  # type: ignore[index]
            with pytest.raises(QMPError):
                client.cmd("memsave", val="0", size=1, filename="f")
            client.cmd("cont")
            event = client.pull_event(wait=30)
            assert event is not None
            assert event["event"] == "RESUME"
            client.cmd("quit")
            # The server hangs up first, as QEMU does, and the client says so when it is closed.
            with contextlib.suppress(EOFError):
                client.close()


@pytest.mark.real
@pytest.mark.parametrize(
    ("options", "typed", "shown"),
    [
        ([], "query-status\nquery-sev\nnope\n", ['"status": "prelaunch"', '"sev-type": "sev"', "has not been found"]),
        (["-H"], "info status\ninfo sev\nx\n", ["VM status: paused (prelaunch)", "SEV is not enabled", "command: 'x'"]),
    ],
)
def test_qmp_shell_shows_what_is_asked_of_the_machine(
    tmp_path: Path, options: list[str], typed: str, shown: list[str]
) -> None:
    with real_machine(f"unix:{tmp_path}/q"):
        done = subprocess.run(
            [sys.executable, "-m", "qemu.qmp.qmp_shell", *options, str(tmp_path / "q")],
            input=typed,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={**os.environ, "HOME": str(tmp_path), "TERM": "dumb"},
        )
    assert done.returncode == 0, done.stderr
    assert "Connected to QEMU 11.1.0" in done.stdout
    for text in shown:
        assert text in done.stdout
