"""Snapshots that somebody made up: a state with any leaf replaced is taken up, or refused in one line.

What comes of a guest whose state was made up is its own affair, as long as it is the guest alone.
"""

from __future__ import annotations

import copy
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from sevplug.board.console import Console
from sevplug.boot import embedded
from sevplug.core.config import MIB, MachineConfig
from sevplug.core.errors import SevplugError, SnapshotError
from sevplug.core.machine import Machine
from sevplug.core.plugins import Selection, load_plugins
from sevplug.core.snapshot import Snapshot

pytestmark = pytest.mark.fuzz

SECONDS = 2 * float(os.environ.get("SEVPLUG_FUZZ_SECONDS", "4"))
VALUES = (
    None,
    True,
    0,
    1,
    -1,
    8,
    255,
    1 << 31,
    1 << 64,
    1 << 300,
    "",
    "x",
    b"",
    b"\xff" * 16,
    [],
    [0],
    {},
    {"a": 1},
    1.5,
)


def leaves(state: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to each value in a state, but for the words of a random generator, which are all alike."""
    if path:
        yield path
    items = state.items() if isinstance(state, dict) else enumerate(state) if isinstance(state, list) else ()
    for key, value in items:
        if key == "random":
            yield (*path, key)
        else:
            yield from leaves(value, (*path, key))


def replaced(state: Any, path: tuple[Any, ...], value: Any) -> Any:
    changed = copy.copy(state)
    changed[path[0]] = value if len(path) == 1 else replaced(state[path[0]], path[1:], value)
    return changed


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    manager = load_plugins(Selection.parse(["no:qmp", "no:logging", "no:gdb", "no:progress"]))
    with Machine(MachineConfig(boot=embedded.load(), memory=16 * MIB), manager) as made:
        yield made


def refusal(machine: Machine, snapshot: Snapshot) -> str | None:
    try:
        machine.restore(snapshot)
    except SnapshotError as error:
        return str(error)
    return None


def test_a_state_with_a_value_replaced_is_taken_up_or_refused(machine: Machine) -> None:
    Console(machine).expect("SEV is active", 20)
    snapshot = machine.snapshot()
    ways = list(leaves(snapshot.state))
    assert len(ways) > 500
    choice = random.Random(0)
    end = time.monotonic() + SECONDS
    refused = taken = 0
    while time.monotonic() < end:
        path, value = choice.choice(ways), choice.choice(VALUES)
        made_up = attrs.evolve(snapshot, state=replaced(snapshot.state, path, value))
        said = refusal(machine, made_up)
        if said is not None:
            assert "\n" not in said, (path, value)
            refused += 1
            continue
        taken += 1
        try:
            machine.run(0.02)
        except (SevplugError, TypeError, ValueError, OverflowError, IndexError, AttributeError, KeyError):
            continue
    assert refused > 20
    assert taken > 20
    machine.restore(snapshot)
    assert machine.run(20).result == "shutdown"


def test_a_changed_file_is_refused(machine: Machine, tmp_path: Path) -> None:
    machine.restore(machine_snapshot := fresh(machine))
    path = tmp_path / "guest"
    machine_snapshot.save(str(path), bytes(32))
    valid = path.read_bytes()
    choice = random.Random(1)
    end = time.monotonic() + SECONDS / 4
    while time.monotonic() < end:
        data = bytearray(valid)
        at = choice.randrange(len(data))
        data[at] ^= 1 << choice.randrange(8)
        path.write_bytes(data if choice.random() < 0.7 else valid[:at])
        with pytest.raises(SnapshotError):
            Snapshot.load(str(path), bytes(32))


def fresh(machine: Machine) -> Snapshot:
    """Any snapshot of the machine, which may have ended."""
    with Machine(
        machine.config, load_plugins(Selection.parse(["no:qmp", "no:logging", "no:gdb", "no:progress"]))
    ) as other:
        other.start_launch()
        return other.snapshot()
