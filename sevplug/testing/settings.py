"""From what a test says of a guest to its configuration."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, TypedDict

from sevplug.boot import embedded
from sevplug.core.config import BootImages, Image, MachineConfig, ObjectSpec
from sevplug.core.errors import ConfigError
from sevplug.plugins import sev_object
from sevplug.plugins.kernel_hashes import with_kernel_hashes
from sevplug.sevapi.policy import Policy
from sevplug.testing.owner import Owner
from sevplug.testing.platform import Platform

ImageSource = str | Path | bytes
_IMAGES = ("firmware", "variables", "kernel", "initrd")


class Settings(TypedDict, total=False):
    """What a test may say of a guest; without a word it is the embedded guest, under SEV, with the owner's keys.

    ``firmware``, ``variables``, ``kernel``, ``initrd``: a file's name, or its bytes.  ``cmdline``: of the kernel.
    ``memory``: bytes of RAM.  ``cpu``: a model's name.  ``sev``: properties of the SEV object (``cbitpos``, ``policy``,
    ``kernel-hashes``, ``encrypt-memory``) where they differ; None for a plain guest without SEV.  ``platform``: the
    guest is launched on it with a session of the owner's.  ``options``: values of plug-ins' options, by destination
    name (``{"c_bit_checker": "stop"}``).  ``seed``: of random numbers and of the memory's key.  ``clock``: time.
    """

    firmware: ImageSource
    variables: ImageSource
    kernel: ImageSource
    initrd: ImageSource
    cmdline: str
    memory: int
    cpu: str
    sev: Mapping[str, str] | None
    platform: Platform
    options: Mapping[str, object]
    seed: int
    clock: Literal["virtual", "host"]


def configuration(settings: Settings, owner: Owner) -> tuple[MachineConfig, tuple[str, ...]]:
    """The configuration, and the ``-P`` words that it takes; `ConfigError` for an image that cannot be used."""
    for name in settings:
        if name not in Settings.__annotations__:
            raise TypeError(
                f"{name}: no such setting of a guest, expected one of {', '.join(Settings.__annotations__)}"
            )
    boot = _boot(settings)
    options = dict(settings.get("options", {}))
    given = settings.get("sev", {})
    objects: tuple[ObjectSpec, ...] = ()
    if given is not None:
        platform = settings.get("platform")
        objects = with_kernel_hashes((_sev_object(given, platform, owner),), boot)
        if platform is not None:
            options["platform"] = str(platform.folder)
    config = MachineConfig(
        boot=boot,
        memory=settings.get("memory", MachineConfig().memory),
        cpu=settings.get("cpu", MachineConfig().cpu),
        objects=objects,
        options=options,
        seed=settings.get("seed", 0),
        clock=settings.get("clock", "virtual"),
    )
    return config, ("no:sev",) if given is None else ()


def _boot(settings: Settings) -> BootImages:
    images = {name: _image(settings.get(name), name) for name in _IMAGES}
    cmdline = settings.get("cmdline")
    if images["kernel"] is None and (images["initrd"] is not None or cmdline is not None):
        raise ConfigError("initrd, cmdline: they are a kernel's, expected kernel too")
    if images["firmware"] is None and images["variables"] is not None:
        raise ConfigError("variables: they are a firmware's, expected firmware too")
    if images["firmware"] is None and images["kernel"] is None:
        return embedded.load()
    return BootImages(**images, cmdline=cmdline)


def _image(source: object, what: str) -> Image | None:
    if source is None:
        return None
    if isinstance(source, bytes):
        return Image(source, f"({what} of the test)")
    assert isinstance(source, str | Path)
    return Image.load(source, what)


def _sev_object(given: Mapping[str, str], platform: Platform | None, owner: Owner) -> ObjectSpec:
    """The object with the owner's keys: in files, or in a session where there is a ``platform``."""
    kind, properties = sev_object.TYPE, dict(sev_object.DEFAULT_SPEC.properties)
    properties["policy"] = given.get("policy", hex(int(owner.policy)))
    if platform is None:
        properties |= {"tik": str(owner.tik_file), "tek": str(owner.tek_file)}
    else:
        kind = "sev-guest"
        certificate, session = owner.session_files(platform, _policy(properties["policy"], owner))
        properties |= {"dh-cert-file": str(certificate), "session-file": str(session)}
    return ObjectSpec(kind, sev_object.DEFAULT_SPEC.id, {**properties, **given})


def _policy(text: str, owner: Owner) -> Policy:
    try:
        return Policy(int(text, 0))
    except ValueError:
        return owner.policy  # the object's own check says what is wrong with the text
