"""Running real firmware in this process until it has said something."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from sevplug.core.config import BootImages, Image, MachineConfig, ObjectSpec
from sevplug.core.machine import Machine
from sevplug.core.plugins import Selection, load_plugins


def sev_object(c_bit: int = 51, encrypt_memory: str = "on") -> ObjectSpec:
    """An ``-object sev-emulated`` with zero keys."""
    properties = {"cbitpos": str(c_bit), "reduced-phys-bits": "1", "encrypt-memory": encrypt_memory}
    return ObjectSpec("sev-emulated", "sev0", properties)


def run_until(
    text: bytes,
    firmware: Path,
    variables: Path | None = None,
    *,
    objects: Iterable[ObjectSpec] = (),
    plugins: Iterable[str] = (),
    timeout: float = 60,
    then: Callable[[Machine], object] = lambda _machine: None,
) -> tuple[str, bytes]:
    """Run until ``text`` is on the serial port; (result: ``quit`` when it came, everything on the port).

    ``then`` gets the machine at the end.
    """
    boot = BootImages(
        firmware=Image.load(firmware, "firmware"),
        variables=Image.load(variables, "variable store") if variables else None,
    )
    manager = load_plugins(Selection.parse(["no:qmp", "no:logging", *plugins]))
    with Machine(MachineConfig(boot=boot, objects=tuple(objects)), manager) as machine:
        serial = machine.private["serial"]

        def look(_piece: bytes) -> None:
            if text in serial.output[-4096:]:  # type: ignore[attr-defined]
                machine.quit()

        serial.on_output.append(look)  # type: ignore[attr-defined]
        run = machine.run(timeout=timeout)
        then(machine)
        return run.result, bytes(serial.output)  # type: ignore[attr-defined]
