"""Booting real kernels in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

import attrs
from parts import find_image

from sevplug.cli.owner_role import play_owner
from sevplug.core.config import MIB, BootImages, Image, MachineConfig, ObjectSpec
from sevplug.core.machine import Machine
from sevplug.core.plugins import Selection, load_plugins
from sevplug.core.result import RunResult


@attrs.frozen
class Boot:
    """One boot: how it ended, what it said, and what lay in firmware's area for secrets at the end.

    ``findings``: of the C-bit checker; None without SEV.
    """

    run: RunResult
    said: bytes = attrs.field(repr=lambda said: repr(said[-600:]))
    launch: Mapping[str, Any]
    area: bytes = attrs.field(repr=False)
    findings: list[str] | None = None


def boot(
    kernel: str,
    initrd: str | None,
    *,
    append: str = "",
    c_bit: int = 51,
    memory: int = 256,
    secrets: Mapping[UUID, bytes] | None = None,
    plugins: Iterable[str] = (),
    firmware: str | Path | None = "OVMF.amdsev.fd",
    extra: Iterable[object] = (),
    disks: Iterable[str] = (),
    seed: int = 0,
    clock: str = "virtual",
    prepare: Callable[[Machine], object] = lambda _machine: None,
    until: bytes | None = None,
    timeout: float = 120,
) -> Boot:
    """Boot through firmware with measured direct boot, until the end or until ``until`` is on the serial port.

    ``firmware``: a name among the images, a path, or None for the direct entry.  ``memory`` in MiB.  ``extra``:
    plug-ins of the test's own, with a ``name``.  ``disks``: as ``--disk`` takes them.  ``prepare`` is called with the
    machine before it runs.
    """
    properties = {"cbitpos": str(c_bit), "reduced-phys-bits": "1", "kernel-hashes": "off" if firmware is None else "on"}
    off = "no:sev" in plugins
    images = BootImages(
        firmware=_load(firmware, "firmware"),
        kernel=_load(kernel, "kernel"),
        initrd=_load(initrd, "initrd"),
        cmdline=f"console=ttyS0 {append}".strip(),
    )
    config = MachineConfig(
        boot=images,
        memory=memory * MIB,
        objects=() if off else (ObjectSpec("sev-emulated", "sev0", properties),),
        options={"disk": tuple(disks)},
        seed=seed,
        clock=clock,
    )
    manager = load_plugins(Selection.parse(["no:qmp", "no:logging", *plugins]), *extra)
    with Machine(config, manager) as machine:
        serial: Any = machine.private["serial"]
        if until is not None:
            serial.on_output.append(lambda _piece: until in serial.output[-8192:] and machine.quit())
        prepare(machine)
        if secrets is not None:
            play_owner(machine, secrets)
        run = machine.run(timeout=timeout)
        area = machine.memory.read(0x810000, 0xC00, private=True)
        summary = machine.summary(run)
        findings = None if off else summary["c_bit_checker"]["findings"]
        return Boot(run, bytes(serial.output), summary.get("sev", {}), area, findings)


def _load(image: str | Path | None, what: str) -> Image | None:
    if image is None:
        return None
    return Image.load(find_image(image) if isinstance(image, str) else image, what)
