"""Every hook that is called in one guest's life, in order.

pluggy's monitoring is on while the machine is made, so that hot and warm hooks go through pluggy and are seen.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

from embedded_board import EmbeddedBoardPlugin
from machines import manager_with

from sevplug.boot import embedded
from sevplug.core.config import MachineConfig
from sevplug.core.hookspecs import hookimpl
from sevplug.core.launch import LaunchSecret
from sevplug.core.machine import Machine
from sevplug.owner.seal import seal_secrets
from sevplug.plugins import secret_injection
from sevplug.plugins.measurement import MeasurementPlugin
from sevplug.plugins.sev import SevPlugin
from sevplug.sevapi.context import SevContext
from sevplug.sevapi.measurement import LaunchMeasurement


class Onlooker:
    """Implements `translate` too, so that nobody's rule can stand in for the calls."""

    name = "onlooker"

    @hookimpl
    def translate(self) -> None:
        return None

    @hookimpl
    def cpuid(self) -> None:
        return None


def live(*plugins: object) -> tuple[list[str], str]:
    """One life of the embedded guest: the transcript, and what the guest printed.

    ``notify`` is followed by its event.  The hot hook is written down where it is called first, since its further
    calls depend on the engine's cache; calls of another hook in a row are one entry.
    """
    board = EmbeddedBoardPlugin()
    manager = manager_with(board, Onlooker(), *plugins)
    seen: list[str] = []

    def before(name: str, _implementations: object, arguments: Mapping[str, Any]) -> None:
        if name != "translate" or name not in seen:
            seen.append(f"notify {arguments['event']}" if name == "notify" else name)

    manager.add_hookcall_monitoring(before, lambda *_rest: None)
    with Machine(MachineConfig(boot=embedded.load(), memory=16 << 20), manager) as machine:
        machine.start_launch()
        context, measured = machine.launch.context, machine.launch.measurement
        if isinstance(context, SevContext) and measured is not None:
            blob = LaunchMeasurement.from_blob(measured.blob)
            packet = seal_secrets({embedded.SECRET_GUID: embedded.SECRET}, context.keys, blob)
            machine.inject_secret(LaunchSecret(packet.header, packet.payload))
        run = machine.run(timeout=10)
        machine.summary(run)
        assert run.result == "shutdown", run.detail
    return [name for name, _calls in itertools.groupby(seen)], board.text


BUILD = [
    "machine_init",
    "add_devices",
    "memory_cipher",
    "add_launch_regions",
    "cpuid",  # the CPU model's signature, which is in EDX at power-on
    "vcpu_init",
    "address_rule",
    "notify machine.built",
]
END = ["notify guest.shutdown", "guest_exit", "notify run.end", "summary", "machine_close"]


def test_the_life_of_a_plain_guest() -> None:
    transcript, output = live()
    assert transcript == [
        *BUILD,
        "launch_start",
        "notify run.resume",
        "translate",
        "cpuid",
        *END,
    ]
    assert "this CPU has no SEV, a plain guest\n" in output
    assert "no secret was injected\ndone\n" in output


def test_the_life_of_a_sev_guest_with_a_secret() -> None:
    transcript, output = live(SevPlugin(), MeasurementPlugin(), secret_injection)
    assert (
        transcript
        == [
            "machine_init",
            "notify warning",  # the default keys
            *BUILD[1:],
            "launch_start",
            "notify launch.start",
            "launch_update",
            "notify launch.update",
            "launch_measure",
            "notify launch.measure",
            "launch_secret",
            "notify launch.secret",
            "finish",
            "notify launch.finish",
            "notify run.resume",
            "translate",  # the first instruction
            "cpuid",  # 0x80000000 and 0x8000001F
            "rdmsr",  # SEV_STATUS, and the time-stamp counter
            *END,
        ]
    )
    assert "[FAIL]" not in output
    assert f"[ok]   secret {embedded.SECRET_GUID}: {embedded.SECRET.decode()}\ndone\n" in output


def test_two_lives_of_one_guest_are_the_same() -> None:
    first = live(SevPlugin(), MeasurementPlugin(), secret_injection)
    assert live(SevPlugin(), MeasurementPlugin(), secret_injection) == first
