"""The owner of the guests in a test: keys that the launch gets, and the owner's side of the conversation."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol, TypeVar
from uuid import UUID

from sevplug.core.launch import LaunchSecret
from sevplug.core.machine import Machine
from sevplug.owner.errors import OwnerError
from sevplug.owner.expect import expect_images, verify_measurement
from sevplug.owner.seal import seal_secrets
from sevplug.owner.session import make_owner_session, session_files
from sevplug.plugins import sev_object
from sevplug.plugins.kernel_hashes import measured_images
from sevplug.sevapi.context import SevContext
from sevplug.sevapi.keys import KEY_SIZE, TransportKeys
from sevplug.sevapi.measurement import LaunchMeasurement
from sevplug.sevapi.packet import SecretPacket
from sevplug.sevapi.policy import Policy
from sevplug.sevapi.secret_table import parse_guid
from sevplug.testing.platform import Platform

T = TypeVar("T")
_POLICY = Policy(sev_object.DEFAULT_POLICY)


class HasMachine(Protocol):
    """A guest whose machine can be asked: `Guest` or `PausedGuest`."""

    def call(self, function: Callable[[Machine], T]) -> T:
        """What ``function`` returns of the machine."""


class Owner:
    """A guest owner with fresh keys, which the guests of the same test are launched with.

    ``keys``: TIK and TEK.  ``policy``: what the guests' SEV object says, unless the test says otherwise.  ``tik_file``,
    ``tek_file``: the keys as files, as ``tik=`` and ``tek=`` of the object and tools of owners take them.
    """

    def __init__(self, folder: Path, policy: Policy = _POLICY) -> None:
        self.keys = TransportKeys(tek=os.urandom(KEY_SIZE), tik=os.urandom(KEY_SIZE))
        self.policy = policy
        self.tik_file, self.tek_file = folder / "tik.bin", folder / "tek.bin"
        self._folder = folder
        for path, key in ((self.tik_file, self.keys.tik), (self.tek_file, self.keys.tek)):
            path.touch(mode=0o600)
            path.write_bytes(key)

    def session_files(self, platform: Platform, policy: Policy | None = None) -> tuple[Path, Path]:
        """A new session for ``platform`` with these keys: the files for ``dh-cert-file`` and ``session-file``."""
        session = make_owner_session(platform.pdh, self.policy if policy is None else policy, self.keys)
        files = session_files(session)
        for name, file in files.items():
            if not file.secret:
                (self._folder / name).write_bytes(file.data)
        return self._folder / "vm_godh.b64", self._folder / "vm_session.b64"

    def verify(self, guest: HasMachine) -> LaunchMeasurement:
        """The launch measurement of ``guest``, once it is known to be that of the images it was configured with.

        `OwnerError` when it is not, or when this guest has none.
        """
        return guest.call(self._verify)

    def seal(self, secrets: Mapping[UUID | str, bytes | str], measurement: LaunchMeasurement) -> SecretPacket:
        """A packet with ``secrets`` for the guest of ``measurement``.

        A secret is named by a GUID or one of libvirt's names (``luks-key``); a str becomes UTF-8.  `OwnerError` or
        `FormatError` for what cannot be sealed.
        """
        table = {
            parse_guid(name) if isinstance(name, str) else name: data.encode() if isinstance(data, str) else data
            for name, data in secrets.items()
        }
        return seal_secrets(table, self.keys, measurement)

    def inject(self, guest: HasMachine, secrets: Mapping[UUID | str, bytes | str]) -> None:
        """`verify`, `seal`, and hand the packet to the guest's platform; `LaunchRefused` when that refuses."""
        packet = self.seal(secrets, self.verify(guest))
        guest.call(lambda machine: machine.inject_secret(LaunchSecret(packet.header, packet.payload)))

    def _verify(self, machine: Machine) -> LaunchMeasurement:
        machine.start_launch()
        context, measurement = machine.launch.context, machine.launch.measurement
        images = measured_images(machine.config)
        if measurement is None or not isinstance(context, SevContext):
            raise OwnerError("launch measurement: this guest has none; the plug-in sev or measurement is off")
        if images is None:
            raise OwnerError("launch measurement: without firmware there is no image to expect")
        expectation = expect_images(
            context.policy, context.api, images.firmware, images.kernel, images.initrd, images.cmdline
        )
        return verify_measurement(expectation, self.keys.tik, measurement.blob)
