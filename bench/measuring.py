"""How one row is measured: both peers in turn, so that a machine that gets slower is slow for both."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import attrs
from figures import Goal, Row, Spread
from sampling import python_share
from timing import resident_at, seconds_of, seconds_until

# The command lines of sevplug and of its peer; `peers.Missing` when what one needs is not there.
Commands = Callable[[], tuple[list[str], list[str]]]


class Measured(Protocol):
    """A row to be measured."""

    @property
    def name(self) -> str:
        """In the table's first column; no two rows have the same."""

    def check(self) -> None:
        """Find what it needs; `peers.Missing` when that is not there."""

    def run(self, rounds: int) -> Row:
        """Measure it."""


def in_turn(rounds: int, ours: Callable[[], float], theirs: Callable[[], float]) -> tuple[Spread, Spread]:
    """The figures of both: ours, then the peer's, as often as there are rounds."""
    figures = [(ours(), theirs()) for _ in range(rounds)]
    return Spread(tuple(our for our, _ in figures)), Spread(tuple(their for _, their in figures))


@attrs.frozen
class Processes:
    """Seconds from the start of a process until ``until`` is on its standard output, or to its end where that is None.

    ``typed``: the peer's standard input.
    """

    name: str
    commands: Commands
    peer: str = "QEMU"
    until: bytes | None = None
    typed: bytes = b""
    goal: Goal | None = None

    def check(self) -> None:
        """Find the programs and images."""
        self.commands()

    def run(self, rounds: int) -> Row:
        """The times, then the samples."""
        our_command, their_command = self.commands()
        ours, theirs = in_turn(
            rounds, lambda: self._seconds(our_command), lambda: self._seconds(their_command, self.typed)
        )
        share = python_share(our_command, self.until)
        return Row(self.name, ours, theirs, self.peer, share=share, goal=self.goal)

    def _seconds(self, command: list[str], typed: bytes = b"") -> float:
        return seconds_of(command, typed) if self.until is None else seconds_until(command, self.until)


@attrs.frozen
class Guests:
    """Seconds of a core for one of ``count`` guests: ours run ``jobs`` at a time, the peer's one after the other."""

    name: str
    commands: Commands
    peer: str
    count: int
    jobs: int

    def check(self) -> None:
        """Find the program."""
        self.commands()

    def run(self, rounds: int) -> Row:
        """The times."""
        our_command, their_command = self.commands()
        ours, theirs = in_turn(
            rounds,
            lambda: seconds_of(our_command) * self.jobs / self.count,
            lambda: seconds_of(their_command) / self.count,
        )
        return Row(self.name, ours, theirs, self.peer, one_of_many=True)


@attrs.frozen
class Memory:
    """Resident memory beyond the guest's own ``guest_mib``, in MiB, once ``until`` is on standard output."""

    name: str
    commands: Commands
    until: bytes
    guest_mib: int
    goal: Goal | None = None

    def check(self) -> None:
        """Find the programs and images."""
        self.commands()

    def run(self, rounds: int) -> Row:
        """The peaks."""
        our_command, their_command = self.commands()
        ours, theirs = in_turn(rounds, lambda: self._beyond(our_command), lambda: self._beyond(their_command))
        return Row(self.name, ours, theirs, unit="MiB", goal=self.goal)

    def _beyond(self, command: list[str]) -> float:
        return resident_at(command, self.until) - self.guest_mib


@attrs.frozen
class Pair:
    """Two functions to be compared; each does its work once and returns the seconds that it took."""

    ours: Callable[[], float]
    peer: Callable[[], float]
    check: Callable[[], None] = lambda: None


@attrs.frozen
class Inside:
    """Seconds of two functions of this process."""

    name: str
    pair: Pair
    peer: str
    goal: Goal | None = None

    def check(self) -> None:
        """Find what they need."""
        self.pair.check()

    def run(self, rounds: int) -> Row:
        """The times."""
        ours, theirs = in_turn(rounds, self.pair.ours, self.pair.peer)
        return Row(self.name, ours, theirs, self.peer, goal=self.goal)
