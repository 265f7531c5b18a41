"""The plug-in ``measurement``: the launch digest, and the launch measurement that an owner checks.

The digest is over the plaintext of all regions; the measurement authenticates it under the owner's TIK (SEV API,
chapter 6.5, LAUNCH_MEASURE).
"""

from __future__ import annotations

import os
from typing import Any

from sevplug.core.hookspecs import hookimpl
from sevplug.core.launch import Launch, LaunchMeasurement
from sevplug.core.machine import Machine
from sevplug.sevapi import measurement
from sevplug.sevapi.context import SevContext
from sevplug.sevapi.digest import LaunchDigest


class MeasurementPlugin:
    """One machine's digest in progress."""

    def __init__(self) -> None:
        self._digest = LaunchDigest()

    @hookimpl
    def launch_update(self, launch: Launch, data: bytes) -> None:
        """LAUNCH_UPDATE_DATA: the digest grows by the region's plaintext."""
        if isinstance(launch.context, SevContext):
            self._digest.update(data)

    @hookimpl
    def launch_measure(self, launch: Launch) -> LaunchMeasurement | None:
        """LAUNCH_MEASURE, with a fresh nonce."""
        context = launch.context
        if not isinstance(context, SevContext):
            return None
        digest = self._digest.digest()
        mnonce = os.urandom(measurement.MNONCE_SIZE)
        measured = measurement.measure(context.keys.tik, context.api, context.policy, digest, mnonce)
        return LaunchMeasurement(digest, measured.blob)

    @hookimpl
    def snapshot_save(self) -> None:
        """The digest in progress is of no use once the launch is measured, and no snapshot is made before."""

    @hookimpl
    def summary(self, machine: Machine, document: dict[str, Any]) -> None:
        """Adds the digest (hex) and the measurement (base64) to the key ``sev``."""
        measured = machine.launch.measurement
        if measured is not None and isinstance(machine.launch.context, SevContext):
            document.setdefault("sev", {}).update(
                launch_digest=measured.digest.hex(),
                measurement=measurement.LaunchMeasurement.from_blob(measured.blob).to_base64(),
            )
