"""Which machine a snapshot is of, as plain data: what has to be the same for its state to mean the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from sevplug import __version__
from sevplug.core.config import BootImages, Image
from sevplug.core.errors import SnapshotError
from sevplug.core.plugins import PluginManager
from sevplug.core.snapshot.image import describe_ranges

if TYPE_CHECKING:
    from sevplug.core.machine import Machine

ROLES: Final = ("firmware", "variables", "kernel", "initrd")
# Hooks by which a plug-in changes what a guest sees from now on; who has none of them looks on, or has built what is
# compared by itself: devices and ranges of memory.
_SHAPING: Final = frozenset(
    {
        "vcpu_init", "address_rule", "cpuid", "rdmsr", "wrmsr", "translate", "intercept", "unknown_opcode",
        "memory_cipher", "launch_start", "launch_secret", "finish",
    }
)  # fmt: skip
# What a user calls the fields of a configuration.
_FIELDS: Final = {
    "memory": "memory (-m)", "cpu": "CPU model", "seed": "seed", "clock": "clock", "reboot": "reboot",
    "cmdline": "kernel command line", "objects": "objects", "machine_options": "machine options",
    "plugins": "plug-ins", "ranges": "memory ranges", "devices": "devices",
}  # fmt: skip


def identity_of(machine: Machine) -> dict[str, Any]:
    """The identity of ``machine``, whose devices are complete."""
    config = machine.config
    return {
        "sevplug": __version__,
        "memory": config.memory,
        "cpu": config.cpu,
        "seed": config.seed,
        "clock": config.clock,
        "reboot": config.reboot,
        "cmdline": config.boot.cmdline,
        "images": _images(config.boot),
        "objects": [[spec.type, spec.id, dict(spec.properties)] for spec in config.objects],
        "machine_options": dict(config.machine_options),
        "plugins": shaping_plugins(machine.plugins),
        "ranges": describe_ranges(machine.memory),
        "devices": [device.name for device in machine.devices],
    }


def check_identity(saved: Mapping[str, Any], present: Mapping[str, Any], where: str) -> None:
    """`SnapshotError` with the first thing in which the machine ``present`` is not the ``saved`` one."""
    if saved.get("sevplug") != present["sevplug"]:
        raise SnapshotError(f"{where}: made by sevplug {saved.get('sevplug')}, this is {present['sevplug']}")
    try:
        for role in ROLES:
            _check_image(role, saved["images"][role], present["images"][role], where)
    except (KeyError, TypeError):
        raise SnapshotError(f"{where}: it does not say which images it is of") from None
    for field, name in _FIELDS.items():
        if saved.get(field) != present[field]:
            raise SnapshotError(
                f"{where}: {name}: made with {_shown(saved.get(field))}, this machine has {_shown(present[field])}"
            )


def shaping_plugins(manager: PluginManager) -> list[list[str]]:
    """[name, distribution, version] of each plug-in that changes what a guest sees, sorted."""
    found = []
    for name, plugin in manager.list_name_plugin():
        callers = manager.get_hookcallers(plugin) if plugin is not None else None
        if callers and any(caller.name in _SHAPING for caller in callers):
            info = manager.infos.get(name)
            found.append([name, "", ""] if info is None else [name, info.distribution, info.version])
    return sorted(found)


def _images(boot: BootImages) -> dict[str, Any]:
    images = {role: getattr(boot, role) for role in ROLES}
    return {role: None if image is None else _describe(image) for role, image in images.items()}


def _describe(image: Image) -> dict[str, Any]:
    return {"path": image.path, "size": image.size, "sha256": image.sha256}


def _check_image(role: str, saved: Mapping[str, Any] | None, present: Mapping[str, Any] | None, where: str) -> None:
    if saved is None and present is None:
        return
    if present is None and saved is not None:
        raise SnapshotError(f"{where}: {role}: made with {saved['path']}, this machine has none")
    if saved is None and present is not None:
        raise SnapshotError(f"{where}: {role}: made without one, this machine has {present['path']}")
    if saved is not None and present is not None and saved["sha256"] != present["sha256"]:
        raise SnapshotError(
            f"{where}: {role} {present['path']}: its SHA-256 is {present['sha256']}, "
            f"made with one that has {saved['sha256']}"
        )


def _shown(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 200 else f"{text[:200]}..."
