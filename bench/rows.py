"""Every row of the table, in its order."""

from __future__ import annotations

from figures import Goal
from inside import BOUND_HOOK, LAUNCH_DIGEST, WALKS
from measuring import Guests, Inside, Measured, Memory, Processes
from peers import (
    MATRIX_GUESTS,
    USERSPACE,
    Guest,
    qemu_boot,
    qemu_start,
    sevplug_boot,
    sevplug_matrix,
    sevplug_program,
    sevplug_runs,
)

_BUSYBOX, _COCO = "initrd-busybox.cpio", "initrd-coco.cpio.gz"
_OVMF = Guest("vmlinuz-6.1-cloud", _BUSYBOX, firmware=True)
_DIRECT = Guest("vmlinuz-6.1-cloud", _BUSYBOX, firmware=False)
_FASTER = Goal(1.0)
_JOBS = 2


def measured() -> list[Measured]:
    """What is measured."""
    return [
        _boot("Debian 6.1, OVMF", _OVMF, _FASTER),
        _boot("Debian 6.1, direct", _DIRECT, _FASTER),
        _boot("Debian 6.12, OVMF", Guest("vmlinuz-6.12-cloud", _BUSYBOX, firmware=True)),
        _boot("Debian 6.12, direct", Guest("vmlinuz-6.12-cloud", _BUSYBOX, firmware=False)),
        _boot("CoCo 6.12, OVMF", Guest("bzImage-coco", _COCO, firmware=True)),
        _boot("CoCo 6.12, direct", Guest("bzImage-coco", _COCO, firmware=False)),
        _encryption("encrypted memory, Debian 6.1, OVMF", _OVMF),
        _encryption("encrypted memory, Debian 6.1, direct", _DIRECT),
        Memory(
            "resident memory beyond the guest's 256 MiB, Debian 6.1, OVMF",
            lambda: ([*sevplug_program(), *sevplug_boot(_OVMF)], qemu_boot(_OVMF)),
            USERSPACE,
            guest_mib=256,
            goal=Goal(60, of_ratio=False),
        ),
        Processes(
            "embedded guest, whole process",
            lambda: ([*sevplug_program(), "run"], qemu_start()),
            peer="QEMU: start and quit",
            typed=b"quit\n",
            goal=Goal(0.5, of_ratio=False),
        ),
        Guests(
            f"embedded guests, {_JOBS} at a time: seconds of a core for one",
            lambda: (sevplug_matrix(_JOBS), sevplug_runs(MATRIX_GUESTS)),
            peer="`sevplug run`, one after the other",
            count=MATRIX_GUESTS,
            jobs=_JOBS,
        ),
        Inside(
            "launch digest of a file of 256 MiB",
            LAUNCH_DIGEST,
            peer="openssl dgst -sha256",
            # 0.95 of its speed.
            goal=Goal(1.05),
        ),
        Inside("100,000 fills, compiled page walk", WALKS, peer="Python's page walk"),
        Inside("a million calls of a bound hook", BOUND_HOOK, peer="plain calls"),
    ]


def _boot(name: str, guest: Guest, goal: Goal | None = None) -> Processes:
    def commands() -> tuple[list[str], list[str]]:
        return [*sevplug_program(), *sevplug_boot(guest)], qemu_boot(guest)

    return Processes(name, commands, until=USERSPACE, goal=goal)


def _encryption(name: str, guest: Guest) -> Processes:
    """What encrypted memory costs: sevplug against itself with plaintext memory."""

    def commands() -> tuple[list[str], list[str]]:
        program = sevplug_program()
        return [*program, *sevplug_boot(guest)], [*program, *sevplug_boot(guest, encrypted=False)]

    return Processes(name, commands, peer="encrypt-memory=off", until=USERSPACE, goal=Goal(1.02))
