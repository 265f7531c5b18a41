"""What was measured, as values: the spread of one peer's runs, and a row of two peers."""

from __future__ import annotations

import statistics
from typing import Any

import attrs


@attrs.frozen
class Spread:
    """Figures of at least one run of one thing."""

    figures: tuple[float, ...] = attrs.field(validator=attrs.validators.min_len(1))

    @property
    def median(self) -> float:
        return statistics.median(self.figures)

    @property
    def least(self) -> float:
        return min(self.figures)

    @property
    def most(self) -> float:
        return max(self.figures)

    def as_json(self) -> dict[str, Any]:
        """The three figures and the runs behind them."""
        return {"median": self.median, "min": self.least, "max": self.most, "runs": list(self.figures)}


@attrs.frozen
class Share:
    """Samples of one run of sevplug: how many there were, and how many of them found it in Python."""

    samples: int
    in_python: int

    @property
    def fraction(self) -> float | None:
        """Between 0 and 1; None where nothing was sampled."""
        return self.in_python / self.samples if self.samples else None


@attrs.frozen
class Goal:
    """The most that is aimed at: of the ratio, or of our own figure in the row's unit."""

    most: float
    of_ratio: bool = True


@attrs.frozen
class Row:
    """One line of the table: a thing to do, its figures here and in a peer, and the goal, if there is one.

    ``unit``: of the figures, of which less is better.  ``share``: None where Python's share was not asked for.
    ``one_of_many``: the figures are seconds of a core that one of many took, so that there is a number of them a
    minute and core.
    """

    name: str
    ours: Spread
    peer: Spread
    peer_name: str = "QEMU"
    unit: str = "s"
    share: Share | None = None
    goal: Goal | None = None
    one_of_many: bool = False

    @property
    def ratio(self) -> float:
        """Our median over the peer's."""
        return self.ours.median / self.peer.median

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None where there is none."""
        if self.goal is None:
            return None
        return (self.ratio if self.goal.of_ratio else self.ours.median) <= self.goal.most

    def as_json(self) -> dict[str, Any]:
        """The row's figures by name."""
        goal = self.goal
        return {
            "name": self.name,
            "unit": self.unit,
            "sevplug": self.ours.as_json(),
            "peer_name": self.peer_name,
            "peer": self.peer.as_json(),
            "ratio": self.ratio,
            "goal": None if goal is None else {"most": goal.most, "of": "ratio" if goal.of_ratio else "sevplug"},
            "met": self.met,
            "python_share": None if self.share is None else self.share.fraction,
            "python_samples": 0 if self.share is None else self.share.samples,
            "a_minute_and_core": 60 / self.ours.median if self.one_of_many else None,
        }
