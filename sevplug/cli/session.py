"""One guest from its configuration to an exit status; what ``run`` and ``qemu`` have in common."""

from __future__ import annotations

import contextlib
import errno
import signal
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING
from uuid import UUID

import attrs

from sevplug.cli import collector
from sevplug.cli.app import NOT_IN_ORDER
from sevplug.cli.complaints import EndedBadly
from sevplug.cli.summary_file import SummaryFile
from sevplug.core.config import BootImages, Image, MachineConfig
from sevplug.core.errors import ConfigError
from sevplug.core.plugins import PluginManager
from sevplug.core.result import RESULTS, TIMEOUT

if TYPE_CHECKING:
    from sevplug.core.machine import Machine
    from sevplug.core.snapshot import Snapshot

TIMED_OUT = 3
# QEMU's limit for the flash of a PC; what goes over RAM is refused when it is placed.
FIRMWARE_LIMIT = 8 << 20
KERNEL_LIMIT = 1 << 30


@attrs.frozen
class Session:
    """What one command line asked for.

    ``secrets``: what the guest owner, played in this process, injects; empty: nobody plays.  ``optional_secrets``: they
    are a demonstration, left out with a warning where the guest cannot take them.  ``timeout``: wall seconds.
    ``summary``: a file name.  ``ram_digest``: RAM's digest at the end is wanted.  ``warnings``: lines for the log.
    ``snapshot``: what the guest goes on from.
    """

    config: MachineConfig
    secrets: Mapping[UUID, bytes] = attrs.field(factory=dict, repr=False)
    optional_secrets: bool = False
    timeout: float | None = None
    summary: str | None = None
    ram_digest: bool = False
    warnings: tuple[str, ...] = ()
    snapshot: Snapshot | None = None


def load_images(
    firmware: tuple[str, str] | None,
    variables: tuple[str, str] | None = None,
    kernel: tuple[str, str] | None = None,
    initrd: tuple[str, str] | None = None,
    cmdline: str | None = None,
) -> BootImages:
    """Read the files a guest starts from, each given as (the option that named it, file name).

    `ConfigError` names option and file when one is missing, empty or too large.
    """

    def load(named: tuple[str, str] | None, limit: int) -> Image | None:
        return None if named is None else Image.load(named[1], named[0], limit=limit)

    return BootImages(
        load(firmware, FIRMWARE_LIMIT),
        load(variables, FIRMWARE_LIMIT),
        load(kernel, KERNEL_LIMIT),
        load(initrd, KERNEL_LIMIT),
        cmdline,
    )


def embedded_guest() -> tuple[BootImages, dict[UUID, bytes]]:
    """The guest that comes with sevplug, and the secret of its demonstration."""
    from sevplug.boot import embedded

    return embedded.load(), {embedded.SECRET_GUID: embedded.SECRET}


@contextlib.contextmanager
def opened(session: Session, plugins: PluginManager) -> Iterator[Machine]:
    """The machine of ``session``: built, with its launch played by the owner where there is one, or restored.

    `ConfigError` and `LaunchRefused` where it cannot be.
    """
    from sevplug.core.machine import Machine

    if session.config.paused and not any(session.config.options.get(name) for name in ("qmp", "gdb")):
        raise ConfigError("-S: without a server nothing could ever let the guest run, expected --qmp or --gdb too")
    if session.config.boot.direct and not plugins.has_plugin("direct-boot"):
        raise ConfigError("--kernel: without firmware the plug-in direct-boot starts it, expected it to be on")
    collector.settle()
    with contextlib.ExitStack() as stack:
        try:
            machine = stack.enter_context(Machine(session.config, plugins))
        except OSError as error:
            if error.errno != errno.ENOMEM:
                raise
            raise ConfigError(f"-m: the host has no {session.config.memory} bytes of memory for the guest") from None
        for text in session.warnings:
            machine.warn(text)
        if session.snapshot is not None:
            machine.restore(session.snapshot)
        if session.secrets:
            _own(machine, session)
        yield machine


def run_session(session: Session, plugins: PluginManager) -> int:
    """Build, launch and run the guest; the exit status says how it ended.

    `ConfigError` and `LaunchRefused` where it never ran, `EndedBadly` where it did not end in order.
    """
    from sevplug.core.signals import ended_by_signals

    with contextlib.ExitStack() as stack:
        summary = None if session.summary is None else stack.enter_context(SummaryFile(session.summary))
        machine = stack.enter_context(opened(session, plugins))
        with ended_by_signals(machine, signal.SIGINT, signal.SIGTERM) as interrupted:
            run = machine.run(session.timeout)
        document = machine.summary(run, ram_digest=session.ram_digest)
        if summary is not None:
            summary.write(document)
    if interrupted.status is not None:
        return interrupted.status
    if run.orderly:
        return 0
    text = f"the guest did not end in order: {run.result}, {run.detail or RESULTS.get(run.result, '')}"
    raise EndedBadly(text, TIMED_OUT if run.result == TIMEOUT else NOT_IN_ORDER)


def _own(machine: Machine, session: Session) -> None:
    from sevplug.cli.owner_role import can_play, play_owner

    if session.optional_secrets and not can_play(machine):
        if machine.launch.context is not None:
            machine.warn("no secret is injected: expected the plug-ins sev, measurement and secret-injection to be on")
        return
    play_owner(machine, session.secrets)
