"""The guest owner, played in the machine's own process: expect, verify, seal, inject.

A real owner is somewhere else and trusts nothing the host says; this one shows the conversation, and tests a guest's
side of it.  Its expectation comes from the images as they were read, never from the launch.
"""

from __future__ import annotations

from collections.abc import Mapping
from uuid import UUID

from sevplug.core import events
from sevplug.core.config import MachineConfig
from sevplug.core.errors import ConfigError, LaunchRefused
from sevplug.core.launch import LaunchSecret
from sevplug.core.machine import Machine
from sevplug.owner.errors import OwnerError
from sevplug.owner.expect import Expectation, expect_images, verify_measurement
from sevplug.owner.seal import read_secrets, seal_secrets
from sevplug.plugins.kernel_hashes import measured_images
from sevplug.sevapi.context import SevContext


def read_owner_secrets(specs: tuple[str, ...]) -> dict[UUID, bytes]:
    """The secrets of several ``GUID=FILE``; `ConfigError` where one cannot be used."""
    try:
        return read_secrets(specs)
    except OwnerError as error:
        raise ConfigError(f"--secret: {str(error).removeprefix('secret: ')}") from None


def can_play(machine: Machine) -> bool:
    """Whether the launch is one that this owner knows, measured, and takes secrets; starts it."""
    machine.start_launch()
    takes_secrets = bool(machine.plugins.hook.launch_secret.get_hookimpls())
    return isinstance(machine.launch.context, SevContext) and machine.launch.measurement is not None and takes_secrets


def play_owner(machine: Machine, secrets: Mapping[UUID, bytes]) -> None:
    """Verify the launch of ``machine`` and inject ``secrets``.

    `ConfigError` when this guest has no launch that could be verified; `LaunchRefused` when the owner or the platform's
    firmware refuses.  The guest has not run in either case.
    """
    if not can_play(machine):
        raise ConfigError(
            "--secret: this guest cannot take one, expected the plug-ins sev, measurement and secret-injection to be on"
        )
    if machine.config.boot.direct:
        raise ConfigError("--secret: a kernel without firmware has no place for one, expected firmware (--bios) too")
    context = machine.launch.context
    measurement = machine.launch.measurement
    assert measurement is not None
    assert isinstance(context, SevContext)
    try:
        expectation = _expect(machine.config, context)
        verified = verify_measurement(expectation, context.keys.tik, measurement.blob)
        machine.notify(events.OWNER_VERIFIED, digest=expectation.digest.hex())
        packet = seal_secrets(secrets, context.keys, verified)
    except OwnerError as error:
        raise LaunchRefused(f"the guest owner refuses the launch: {error}") from None
    machine.inject_secret(LaunchSecret(packet.header, packet.payload))


def _expect(config: MachineConfig, context: SevContext) -> Expectation:
    """What the owner of these images, this policy and this platform expects."""
    images = measured_images(config)
    if images is None:
        raise OwnerError("expectation: without firmware there is no image to expect")
    return expect_images(context.policy, context.api, images.firmware, images.kernel, images.initrd, images.cmdline)
