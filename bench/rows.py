"""What is compared with what, and how one row is measured."""

from __future__ import annotations

from collections.abc import Callable

import attrs
from figures import Row, Spread
from peers import USERSPACE, Guest, qemu_boot, qemu_start, sevplug_boot, sevplug_program
from sampling import python_share
from timing import seconds_of, seconds_until

_BUSYBOX, _COCO = "initrd-busybox.cpio", "initrd-coco.cpio.gz"


@attrs.frozen
class Comparison:
    """A row to be measured.

    ``commands``: gives the command lines of sevplug and of QEMU; `peers.Missing` when what one needs is not there.
    ``until``: what ends a measurement once it is on standard
    output; None: the end of the process.  ``typed``: QEMU's standard input.  ``goal``: the ratio aimed at.
    """

    name: str
    commands: Callable[[], tuple[list[str], list[str]]]
    until: bytes | None = None
    typed: bytes = b""
    goal: float | None = None

    def run(self, rounds: int) -> Row:
        """Both peers in turn, so that a machine that gets slower is slow for both; then the samples."""
        our_command, their_command = self.commands()
        ours, theirs = [], []
        for _ in range(rounds):
            ours.append(self._seconds(our_command))
            theirs.append(self._seconds(their_command, self.typed))
        share = python_share(our_command, self.until)
        return Row(self.name, Spread(tuple(ours)), Spread(tuple(theirs)), share, self.goal)

    def _seconds(self, command: list[str], typed: bytes = b"") -> float:
        return seconds_of(command, typed) if self.until is None else seconds_until(command, self.until)


def comparisons() -> list[Comparison]:
    """Every row, in the table's order."""
    return [
        _boot("Debian 6.1, OVMF", Guest("vmlinuz-6.1-cloud", _BUSYBOX, firmware=True), 2.0),
        _boot("Debian 6.1, direct", Guest("vmlinuz-6.1-cloud", _BUSYBOX, firmware=False), 2.2),
        _boot("Debian 6.12, OVMF", Guest("vmlinuz-6.12-cloud", _BUSYBOX, firmware=True)),
        _boot("Debian 6.12, direct", Guest("vmlinuz-6.12-cloud", _BUSYBOX, firmware=False)),
        _boot("CoCo 6.12, OVMF", Guest("bzImage-coco", _COCO, firmware=True)),
        _boot("CoCo 6.12, direct", Guest("bzImage-coco", _COCO, firmware=False)),
        _encryption("6.1, OVMF", Guest("vmlinuz-6.1-cloud", _BUSYBOX, firmware=True)),
        _encryption("6.1, direct", Guest("vmlinuz-6.1-cloud", _BUSYBOX, firmware=False)),
        Comparison(
            "embedded guest, whole process (QEMU: start and quit)",
            lambda: ([*sevplug_program(), "run"], qemu_start()),
            typed=b"quit\n",
        ),
    ]


def _encryption(name: str, guest: Guest) -> Comparison:
    """What encrypted memory costs: sevplug against itself with plaintext memory."""

    def commands() -> tuple[list[str], list[str]]:
        program = sevplug_program()
        return [*program, *sevplug_boot(guest)], [*program, *sevplug_boot(guest, encrypted=False)]

    return Comparison(f"Debian {name} (peer: sevplug with encrypt-memory=off)", commands, USERSPACE, goal=1.05)


def _boot(name: str, guest: Guest, goal: float | None = None) -> Comparison:
    def commands() -> tuple[list[str], list[str]]:
        return [*sevplug_program(), *sevplug_boot(guest)], qemu_boot(guest)

    return Comparison(name, commands, USERSPACE, goal=goal)
