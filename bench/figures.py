"""What was measured, as values: the spread of one peer's runs, and a row of two peers."""

from __future__ import annotations

import statistics
from typing import Any

import attrs


@attrs.frozen
class Spread:
    """Seconds of at least one run of one thing."""

    seconds: tuple[float, ...] = attrs.field(validator=attrs.validators.min_len(1))

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def least(self) -> float:
        return min(self.seconds)

    @property
    def most(self) -> float:
        return max(self.seconds)

    def as_json(self) -> dict[str, Any]:
        """The three figures and the runs behind them, in seconds."""
        return {"median": self.median, "min": self.least, "max": self.most, "runs": list(self.seconds)}


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
class Row:
    """One line of the table: a guest, its seconds here and in QEMU, and the ratio that is aimed at, if one is."""

    name: str
    ours: Spread
    peer: Spread
    share: Share
    goal: float | None = None

    @property
    def ratio(self) -> float:
        """Our median over the peer's."""
        return self.ours.median / self.peer.median

    def as_json(self) -> dict[str, Any]:
        """The row's figures by name."""
        return {
            "name": self.name,
            "sevplug": self.ours.as_json(),
            "qemu": self.peer.as_json(),
            "ratio": self.ratio,
            "goal": self.goal,
            "python_share": self.share.fraction,
            "python_samples": self.share.samples,
        }
