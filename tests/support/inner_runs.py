"""Running pytest inside a test, on a module as a user of the fixtures writes it, and looking at what that left."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from sevplug.core.machine import Machine
from sevplug.testing.factories import PausedMachineFactory
from sevplug.testing.owner import Owner
from sevplug.testing.platform import new_platform

# Each run would import hypothesis anew, which takes seconds.
QUICKLY = ("-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:hypothesispytest")


class InnerRun:
    """Runs pytest on a user's module in this process; the sevplug fixtures come by the entry point.

    What the module hands to the fixture ``record`` is in ``machines``.
    """

    def __init__(self, pytester: pytest.Pytester) -> None:
        self._pytester = pytester
        self.machines: list[Machine] = []

    @pytest.fixture
    def record(self) -> Callable[[Machine], None]:
        return self.machines.append

    def __call__(self, source: str | None, *arguments: str) -> tuple[dict[str, int], str]:
        """The outcomes, by name, and all that pytest printed about a module with ``source``.

        No source: ``arguments`` name what is there.  No outcomes where pytest printed something else, such as its help.
        """
        if source is not None:
            self._pytester.makepyfile(source)
        result = self._pytester.runpytest_inprocess(*QUICKLY, *arguments, plugins=[self], no_reraise_ctrlc=True)
        told = {"--help", "--markers"} & {*arguments}
        return {} if told else result.parseoutcomes(), result.stdout.str()

    def all_ended(self) -> bool:
        """Every machine is closed, and no thread is left."""
        assert self.machines
        closed = all(machine.control.submit(lambda: None).cancelled() for machine in self.machines)
        return closed and not any(thread.name.startswith("sevplug") for thread in threading.enumerate())


def import_everything() -> None:
    """Import all that a guest needs, by running one.

    pytester takes back what was imported since it began, and the same again would be other modules with other classes.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        new_platform(folder / "platform")
        with PausedMachineFactory(folder, Owner(folder), lambda _heading, _text: None) as factory:
            guest = factory()
            guest.resume()
            guest.wait()
