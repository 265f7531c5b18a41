"""The order of a launch: the initial memory, its measurement, secrets, and the moment in which the guest may start."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sevplug.core import events
from sevplug.core.errors import LaunchRefused
from sevplug.core.launch import Launch, LaunchMeasurement, LaunchRegion, LaunchRequest, LaunchSecret, LaunchState

if TYPE_CHECKING:
    from sevplug.core.machine import Machine


class Launcher:
    """Launches one machine's guest; ``regions`` is what enters its launch, in this order.

    See the methods of `sevplug.core.machine.Machine` that have nearly the same names.
    """

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self.regions: list[LaunchRegion] = []
        self.started = False

    def start(self) -> None:
        machine = self._machine
        if self.started:
            return
        hook, launch = machine.plugins.hook, machine.launch
        with machine.plugins.explained():
            context = hook.launch_start(machine=machine, request=LaunchRequest(tuple(self.regions)))
            self.started = True
            if context is None:
                return
            launch.context = context
            launch.advance("start")
            machine.notify(events.LAUNCH_START, context=context)
            for region in self.regions:
                self._take_in(region)
            measurement = hook.launch_measure(machine=machine, launch=launch)
            if measurement is None:
                return
            launch.advance("measure")
            launch.measurement = measurement
            machine.notify(
                events.LAUNCH_MEASURE,
                digest=measurement.digest.hex(),
                measurement=base64.b64encode(measurement.blob).decode(),
            )

    def _take_in(self, region: LaunchRegion) -> None:
        machine, launch = self._machine, self._machine.launch
        launch.advance("update")
        launch.regions.append(region)
        machine.plugins.hook.launch_update(
            machine=machine, launch=launch, gpa=region.gpa, data=region.data, page_type=region.page_type
        )
        machine.notify(
            events.LAUNCH_UPDATE, name=region.name, gpa=region.gpa, size=region.size, page_type=region.page_type
        )

    def inject(self, packet: LaunchSecret) -> int:
        machine = self._machine
        with machine.plugins.explained():
            gpa: int | None = machine.plugins.hook.launch_secret(machine=machine, launch=machine.launch, packet=packet)
        if gpa is None:
            raise LaunchRefused("the secret is refused: no enabled plug-in takes secrets for this guest")
        machine.notify(events.LAUNCH_SECRET, gpa=gpa, size=len(packet.payload))
        return gpa

    def finish(self) -> None:
        machine, launch = self._machine, self._machine.launch
        if launch.context is None or launch.state is LaunchState.RUNNING:
            return
        with machine.plugins.explained():
            machine.plugins.hook.finish(machine=machine, launch=launch)
        launch.advance("finish")
        machine.notify(events.LAUNCH_FINISH, state=launch.state.value)

    def save(self) -> dict[str, Any]:
        """Where the launch is, as plain data."""
        launch = self._machine.launch
        measured = launch.measurement
        return {
            "launched_as": launch.context is not None,
            "launch": launch.state.value,
            "regions": len(launch.regions),
            "measurement": None if measured is None else [measured.digest, measured.blob],
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Put back what `save` gave; the launch's context is its plug-in's to give."""
        measured = state["measurement"]
        self._machine.launch = Launch(
            LaunchState(state["launch"]),
            regions=self.regions[: state["regions"]],
            measurement=None if measured is None else LaunchMeasurement(bytes(measured[0]), bytes(measured[1])),
        )
        self.started = True
