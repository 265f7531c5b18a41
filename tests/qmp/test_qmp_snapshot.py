"""The extension of QMP that keeps a guest in a file."""

from __future__ import annotations

from pathlib import Path

import pytest
from qmp_support import MIB, Client, real_machine, spinning_guest

from sevplug.core.config import ObjectSpec
from sevplug.core.errors import SnapshotError
from sevplug.core.snapshot import Snapshot, read_snapshot_key
from sevplug.plugins.sev import SevPlugin

SEV = ObjectSpec("sev-emulated", "sev0", {"cbitpos": "51", "reduced-phys-bits": "1"})


@pytest.fixture
def key(tmp_path: Path) -> str:
    path = tmp_path / "key"
    path.write_bytes(bytes(range(32)))
    return str(path)


@pytest.mark.parametrize("stopped", [False, True])
def test_a_guest_that_runs_or_stands_still_is_kept(tmp_path: Path, stopped: bool) -> None:
    target = tmp_path / "guest.snapshot"
    with (
        real_machine(f"unix:{tmp_path}/q", boot=spinning_guest(), memory=MIB, paused=False) as machine,
        Client(tmp_path / "q").negotiate() as client,
    ):
        if stopped:
            client.execute("stop")
        assert client.execute("sevplug-snapshot-save", path=str(target)) == {}
        assert client.execute("query-status")["running"] is not stopped
        snapshot = Snapshot.load(str(target))
        machine.control.submit(lambda: machine.restore(snapshot)).result(20)
        assert client.execute("query-status")["running"] is True


def test_a_restored_guest_that_starts_paused_waits_for_cont(tmp_path: Path) -> None:
    with (
        real_machine(f"unix:{tmp_path}/q", boot=spinning_guest(), memory=MIB) as machine,
        Client(tmp_path / "q").negotiate() as client,
    ):
        assert client.execute("query-status") == {"running": False, "status": "prelaunch"}
        begun = machine.control.submit(machine.snapshot).result(20)
        client.execute("cont")
        assert client.execute("query-status")["running"] is True
        running = machine.control.submit(machine.snapshot).result(20)
        for snapshot, status in ((running, "paused"), (begun, "prelaunch")):
            machine.control.submit(lambda snapshot=snapshot: machine.restore(snapshot)).result(20)
            assert client.execute("query-status") == {"running": False, "status": status}
            client.execute("cont")
            assert client.execute("query-status")["running"] is True


def test_the_key_of_the_command_line_is_used_and_none_goes_over_the_socket(tmp_path: Path, key: str) -> None:
    target = tmp_path / "guest.snapshot"
    settings = {"boot": spinning_guest(), "memory": MIB, "objects": (SEV,), "options": {"snapshot_key": key}}
    with (
        real_machine(f"unix:{tmp_path}/q", SevPlugin(), **settings),
        Client(tmp_path / "q").negotiate() as client,
    ):
        says = client.refusal("sevplug-snapshot-save", path=str(target), key=key)
        assert says == "Parameter 'key' is unexpected"
        assert client.execute("sevplug-snapshot-save", path=str(target)) == {}
    assert Snapshot.load(str(target), read_snapshot_key(key)).private is not None
    with pytest.raises(SnapshotError, match="it is under a key"):
        Snapshot.load(str(target))


def test_without_a_key_an_encrypted_guest_is_refused_and_runs_on(tmp_path: Path) -> None:
    target = tmp_path / "guest.snapshot"
    with (
        real_machine(
            f"unix:{tmp_path}/q", SevPlugin(), boot=spinning_guest(), memory=MIB, objects=(SEV,), paused=False
        ),
        Client(tmp_path / "q").negotiate() as client,
    ):
        says = client.refusal("sevplug-snapshot-save", path=str(target))
        assert says.startswith(f"snapshot {target}: the guest's memory is encrypted, so it needs a key")
        assert client.execute("query-status")["running"] is True
    assert not target.exists()
