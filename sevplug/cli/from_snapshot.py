"""What ``--from`` makes of a snapshot: the configuration of the machine that it is of, with what the line says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import attrs
import click

from sevplug.cli.session import FIRMWARE_LIMIT, KERNEL_LIMIT, embedded_guest
from sevplug.core.config import BootImages, Image, MachineConfig, ObjectSpec
from sevplug.core.errors import ConfigError, SnapshotError

if TYPE_CHECKING:
    from sevplug.core.snapshot import Snapshot

_LIMITS = {"firmware": FIRMWARE_LIMIT, "variables": FIRMWARE_LIMIT, "kernel": KERNEL_LIMIT, "initrd": KERNEL_LIMIT}
# Options that make no sense for a guest that has been launched.
_TOO_LATE = ("secrets",)


def key_option() -> click.Option:
    """A fresh ``--snapshot-key``."""
    return click.Option(
        ["--snapshot-key"],
        metavar="FILE",
        help="A file with 16 bytes or more that nobody else has: snapshots are enciphered under it.",
    )


def from_options() -> list[click.Parameter]:
    """Fresh options of a command that can start from a snapshot."""
    return [
        click.Option(
            ["--from", "from_snapshot"],
            metavar="SNAPSHOT",
            help="Go on from a snapshot.  What the guest is comes from it; what is given here has to be the same.",
        ),
        key_option(),
    ]


def open_snapshot(values: Mapping[str, Any]) -> Snapshot | None:
    """The snapshot that the parsed ``values`` name, or None."""
    path, key = values["from_snapshot"], values["snapshot_key"]
    if path is None:
        if key is not None and not values.get("qmp"):
            raise ConfigError("--snapshot-key: no snapshot is opened or made, expected --from or --qmp too")
        return None
    from sevplug.core.snapshot import Snapshot, read_snapshot_key

    return Snapshot.load(path, None if key is None else read_snapshot_key(key))


def given(ctx: click.Context, names: tuple[str, ...]) -> set[str]:
    """Those of the parameters ``names`` that the user wrote, whatever their value."""
    return {name for name in names if ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE}


def config_of(snapshot: Snapshot, config: MachineConfig, wanted: set[str]) -> MachineConfig:
    """``config``, with everything that is not ``wanted`` as the machine of ``snapshot`` had it.

    ``wanted``: fields of `MachineConfig` and `BootImages` that the command line gives, and names of plug-ins' options.
    `ConfigError` when an image is not where it was; what differs is for `Machine.restore` to find.
    """
    identity, where = snapshot.identity, snapshot.where
    try:
        objects = tuple(ObjectSpec(kind, name, properties) for kind, name, properties in identity["objects"])
        held: dict[str, Any] = {name: identity[name] for name in ("memory", "cpu", "seed", "clock", "reboot")}
        held |= {"objects": objects, "machine_options": identity["machine_options"]}
        options = {name: value for name, value in snapshot.options.items() if name not in wanted}
        boot = _boot(identity, config.boot, wanted)
        taken = {name: value for name, value in held.items() if name not in wanted}
        return attrs.evolve(config, boot=boot, options={**config.options, **options}, **taken)
    except (KeyError, TypeError, ValueError):
        raise SnapshotError(f"{where}: it does not say which machine it is of") from None


def _boot(identity: Mapping[str, Any], present: BootImages, wanted: set[str]) -> BootImages:
    images: dict[str, Image | None] = {}
    for role, limit in _LIMITS.items():
        saved = identity["images"][role]
        if role in wanted:
            images[role] = getattr(present, role)
        elif saved is None:
            images[role] = None
        else:
            images[role] = _image(str(saved["path"]), role, limit)
    return BootImages(**images, cmdline=present.cmdline if "cmdline" in wanted else identity["cmdline"])


def _image(path: str, role: str, limit: int) -> Image:
    ours = embedded_guest()[0].firmware
    if ours is not None and ours.path == path:
        return ours
    return Image.load(path, role, limit=limit)


def refuse_too_late(ctx: click.Context) -> None:
    """`ConfigError` for an option that comes too late for a guest that was launched."""
    for name in sorted(given(ctx, _TOO_LATE)):
        raise ConfigError(f"--{name.removesuffix('s')}: the guest of a snapshot has been launched, nothing is injected")
