"""From a machine to the values of a report: what is only read, and only when the report is made."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from sevplug.plugins import words
from sevplug.plugins.plain import HIDDEN, is_hidden_option
from sevplug.plugins.report.values import ConsoleOutput, ImageInfo, PluginRow

if TYPE_CHECKING:
    from sevplug.board.debugcon import DebugConsole
    from sevplug.board.serial import Serial
    from sevplug.core.config import BootImages, MachineConfig
    from sevplug.core.machine import Machine

# Bytes of a port's output that a report holds, of its beginning and of its end.
HEAD, TAIL = 64 << 10, 192 << 10
# Longer than a secret that a guest may print.
_MARGIN = 8 << 10


def images(boot: BootImages) -> tuple[ImageInfo, ...]:
    """What the guest starts from, with digests."""
    found = [
        ImageInfo(role, image.path, image.size, image.sha256)
        for role, image in (
            ("firmware", boot.firmware),
            ("variables", boot.variables),
            ("kernel", boot.kernel),
            ("initrd", boot.initrd),
        )
        if image is not None
    ]
    if boot.cmdline is not None:
        data = boot.cmdline.encode()
        found.append(ImageInfo("command line", boot.cmdline, len(data), digest(data)))
    return tuple(found)


def configuration(config: MachineConfig) -> tuple[tuple[str, str], ...]:
    """What the user asked for, as (name, text) rows; keys are left out by their names."""
    rows = [("memory", words.size(config.memory)), ("CPU model", config.cpu)]
    for spec in config.objects:
        properties = (f"{name}={_shown(name, value)}" for name, value in spec.properties.items())
        rows.append(("object", ",".join((spec.type, f"id={spec.id}", *properties))))
    rows += [("machine option", f"{name}={_shown(name, value)}") for name, value in config.machine_options.items()]
    rows += [("serial port", config.serial), ("clock", config.clock), ("seed", str(config.seed))]
    rows.append(("at a reset", "starts over" if config.reboot else "ends"))
    if config.paused:
        rows.append(("start", "paused, until QMP says cont"))
    for name, value in sorted(config.options.items()):
        if value not in (None, (), "", False):
            rows.append((f"--{name.replace('_', '-')}", _shown(name, value)))
    return tuple(rows)


def _shown(name: str, value: object) -> str:
    if is_hidden_option(name):
        return HIDDEN
    if isinstance(value, tuple | list):
        return " ".join(_shown(name, inner) for inner in value)
    if isinstance(value, bool):
        return "on" if value else "off"
    if value is None or isinstance(value, str | int | float):
        return str(value)
    # An object may hold anything; a file that it is about may be named.
    return str(getattr(value, "path", f"<{type(value).__name__}>"))


def plugins(machine: Machine) -> tuple[PluginRow, ...]:
    """Every installed plug-in, and those that only this process has."""
    from sevplug.core.plugins import discover

    on, infos = set(machine.plugins.names), machine.plugins.infos
    rows = {info.name: PluginRow(info.name, info.version, info.distribution, info.name in infos) for info in discover()}
    for name in on - rows.keys():
        rows[name] = PluginRow(name, "", "this process", on=True)
    return tuple(rows[name] for name in sorted(rows))


class Port:
    """What a guest sends by one port, from the beginning; the port itself forgets that at some time."""

    def __init__(self, title: str, device: Serial | DebugConsole) -> None:
        self.title = title
        self._device = device
        self._head = bytearray()
        self._total = 0
        device.sent.listeners.append(self._heard)

    def _heard(self, piece: bytes) -> None:
        self._total += len(piece)
        if len(self._head) < HEAD + _MARGIN:
            self._head += piece[: HEAD + _MARGIN]

    def output(self, hide: Callable[[bytes], bytes]) -> ConsoleOutput:
        """What it sent so far; ``hide`` takes secrets out."""
        self._device.sent.flush()
        if self._total <= HEAD + TAIL:
            return ConsoleOutput(self.title, hide(bytes(self._device.output)), b"", self._total)
        # Cut only after hiding, so that half a secret is not left.
        tail = hide(bytes(self._device.output[-TAIL - _MARGIN :]))[-TAIL:]
        return ConsoleOutput(self.title, hide(bytes(self._head))[:HEAD], tail, self._total)


def digest(data: bytes) -> str:
    """The SHA-256 of ``data`` in hex."""
    return hashlib.sha256(data).hexdigest()
