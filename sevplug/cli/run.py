"""``sevplug run``: sevplug's own spelling, with defaults that show a whole SEV guest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import click

from sevplug.cli.from_snapshot import config_of, from_options, given, open_snapshot, refuse_too_late
from sevplug.cli.machine_command import MachineCommand, common_options, loaded_plugins, session_options
from sevplug.cli.options import (
    CONFIDENTIAL_TYPES,
    REFERENCES,
    check_references,
    key_values,
    parse_memory,
    parse_objects,
    parse_serial,
)
from sevplug.cli.session import Session, embedded_guest, load_images, run_session
from sevplug.core.config import BootImages, MachineConfig, ObjectSpec
from sevplug.core.errors import ConfigError
from sevplug.core.plugins import PluginManager

if TYPE_CHECKING:
    from sevplug.core.snapshot import Snapshot

HELP = """Run a guest; with no --bios, --pflash or --kernel, the one that comes with sevplug.

SEV is on: without --object, with keys of zeros.  -P no:sev gives a plain guest.  The launch is shown on stderr,
the guest's serial port on stdout.  Once the guest waits for input, what you type goes to it, Ctrl-C too: Ctrl-A x
ends the run, Ctrl-A h helps.
"""


def command() -> MachineCommand:
    """A fresh ``run`` command, for plug-ins to extend."""
    return MachineCommand("run", callback=_run, help=HELP, short_help="Run a guest.", params=_options())


def _options() -> list[click.Parameter]:
    return [*from_options(), *guest_options()]


def guest_options() -> list[click.Parameter]:
    """Fresh options that say what the guest is, and how its run is shown."""
    return [
        click.Option(["--bios"], metavar="FILE", help="Firmware, mapped so that it ends at 4 GiB."),
        click.Option(
            ["--pflash"], multiple=True, metavar="FILE", help="Firmware as flash: first its code, then its variables."
        ),
        click.Option(["--kernel"], metavar="FILE", help="A Linux kernel (bzImage) to start directly."),
        click.Option(["--initrd"], metavar="FILE", help="Its initial RAM disk."),
        click.Option(["--append"], metavar="TEXT", help="Its command line."),
        click.Option(["-m", "--memory"], default="256M", show_default=True, metavar="SIZE", help="RAM."),
        click.Option(["--cpu"], default="EPYC-Milan", show_default=True, metavar="MODEL", help="CPU model."),
        click.Option(
            ["--object", "objects"],
            multiple=True,
            metavar="TYPE,id=ID[,KEY=VALUE...]",
            help="The SEV object: sev-emulated,id=sev0,cbitpos=47,reduced-phys-bits=1,tik=FILE,tek=FILE,policy=0x1,"
            "kernel-hashes=on",
        ),
        click.Option(
            ["--machine"], multiple=True, metavar="KEY=VALUE[,...]", help="Machine options: memory-encryption=ID."
        ),
        click.Option(["-S", "paused"], is_flag=True, help="Do not start the guest until QMP says cont."),
        click.Option(
            ["--serial"],
            default="stdio",
            show_default=True,
            metavar="stdio|file:PATH|null|unix:PATH|tcp:127.0.0.1:PORT",
            help="The serial port.  A socket serves one client at a time; ,wait=on waits for the first.",
        ),
        click.Option(
            ["--secret", "secrets"],
            multiple=True,
            metavar="GUID=FILE",
            help="Play the guest owner: verify the measurement, seal FILE and inject it.  May be given again.",
        ),
        click.Option(
            ["--seed"],
            type=int,
            default=0,
            show_default=True,
            metavar="N",
            help="Seed of the guest's random numbers (RDRAND).",
        ),
        click.Option(
            ["--clock"],
            type=click.Choice(["virtual", "host"]),
            default="virtual",
            show_default=True,
            help="Virtual time makes two runs the same; the host's is what a person waits for.",
        ),
        *common_options(),
    ]


@click.pass_context
def _run(ctx: click.Context, /, **values: Any) -> int:
    snapshot = open_snapshot(values)
    session, plugins = session_of(ctx, values, snapshot)
    return run_session(session, plugins)


def session_of(
    ctx: click.Context, values: dict[str, Any], snapshot: Snapshot | None = None
) -> tuple[Session, PluginManager]:
    """What the parsed ``values`` ask for; where there is a ``snapshot``, it says what they leave open."""
    assert isinstance(ctx.command, MachineCommand)
    plugins = loaded_plugins(ctx, values["words"])
    objects = parse_objects("--object", values["objects"])
    machine = _machine_options(values["machine"], objects)
    serial = parse_serial("--serial", values["serial"])
    memory = parse_memory("-m", values["memory"])
    secrets = {}
    if values["secrets"]:
        from sevplug.cli.owner_role import read_owner_secrets

        secrets = read_owner_secrets(values["secrets"])
    boot = _images(values) if snapshot is None else _images_given(values)
    demonstration = boot is None and not secrets
    if snapshot is not None:
        refuse_too_late(ctx)
        boot = boot or BootImages()
    elif boot is None:
        boot, demonstration_secrets = embedded_guest()
        secrets = secrets or demonstration_secrets
    if plugins.has_plugin("sev") and snapshot is None:
        from sevplug.plugins.kernel_hashes import with_kernel_hashes

        objects = with_kernel_hashes(objects, boot)
    config = MachineConfig(
        boot=boot,
        memory=memory,
        cpu=values["cpu"],
        objects=objects,
        machine_options=machine,
        options={**ctx.command.plugin_options(values), "snapshot_key": values["snapshot_key"]},
        serial=serial,
        paused=values["paused"],
        seed=values["seed"],
        clock=values["clock"],
    )
    if snapshot is not None:
        config = _completed(ctx, values, config, snapshot)
    return Session(config, secrets, demonstration, snapshot=snapshot, **session_options(values)), plugins


# Parameters that are called otherwise than the fields they fill.
_FIELDS = {
    "bios": ("firmware",), "pflash": ("firmware", "variables"), "append": ("cmdline",), "machine": ("machine_options",),
}  # fmt: skip


def _completed(ctx: click.Context, values: dict[str, Any], config: MachineConfig, snapshot: Snapshot) -> MachineConfig:
    """``config`` with what the command line leaves to ``snapshot``."""
    wanted = given(ctx, tuple(values))
    fields = {field for name in wanted for field in _FIELDS.get(name, (name,))}
    completed = config_of(snapshot, config, fields)
    if "objects" not in wanted:
        return completed
    from sevplug.plugins.kernel_hashes import with_kernel_hashes

    return attrs.evolve(completed, objects=with_kernel_hashes(completed.objects, completed.boot))


def _images_given(values: dict[str, Any]) -> BootImages:
    """The images of the command line, beside a snapshot that has the others."""
    flash = values["pflash"]

    firmware = ("--bios", values["bios"]) if values["bios"] is not None else ("--pflash", flash[0]) if flash else None
    return load_images(
        firmware,
        ("--pflash", flash[1]) if len(flash) > 1 else None,
        None if values["kernel"] is None else ("--kernel", values["kernel"]),
        None if values["initrd"] is None else ("--initrd", values["initrd"]),
        values["append"],
    )


def _images(values: dict[str, Any]) -> BootImages | None:
    """The images of the command line; None when it names none."""
    bios, flash, kernel = values["bios"], values["pflash"], values["kernel"]
    for name in ("initrd", "append"):
        if values[name] is not None and kernel is None:
            raise ConfigError(f"--{name} only allowed with --kernel option")
    if bios is not None and flash:
        raise ConfigError("--bios, --pflash: expected one of them")
    if len(flash) > 2:
        raise ConfigError(f"--pflash {flash[2]}: expected at most two, the firmware's code and its variables")
    if bios is None and not flash and kernel is None:
        return None
    firmware = ("--bios", bios) if bios is not None else ("--pflash", flash[0]) if flash else None
    return load_images(
        firmware,
        ("--pflash", flash[1]) if len(flash) > 1 else None,
        None if kernel is None else ("--kernel", kernel),
        None if values["initrd"] is None else ("--initrd", values["initrd"]),
        values["append"],
    )


def _machine_options(texts: tuple[str, ...], objects: tuple[ObjectSpec, ...]) -> dict[str, str]:
    """The machine options; where the only SEV object is not referred to, it is meant all the same."""
    found: dict[str, str] = {}
    for text in texts:
        found.update(key_values("--machine", text))
    confidential = [spec for spec in objects if spec.type in CONFIDENTIAL_TYPES]
    if len(confidential) == 1 and not any(name in found for name in REFERENCES):
        found[REFERENCES[0]] = confidential[0].id
    check_references("--object", "--machine", objects, found)
    return found
