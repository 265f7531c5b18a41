"""Running a user's test module, and looking at what it left."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from sevplug.core.machine import Machine
from sevplug.testing.factories import PausedMachineFactory
from sevplug.testing.owner import Owner

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

    def __call__(self, source: str, *arguments: str) -> tuple[dict[str, int], str]:
        """The outcomes, by name, and all that pytest printed about a module with ``source``.

        No outcomes where pytest printed something else, such as its help.
        """
        self._pytester.makepyfile(source)
        result = self._pytester.runpytest_inprocess(*QUICKLY, *arguments, plugins=[self], no_reraise_ctrlc=True)
        told = {"--help", "--markers"} & {*arguments}
        return {} if told else result.parseoutcomes(), result.stdout.str()

    def all_ended(self) -> bool:
        """Every machine is closed, and no thread is left."""
        assert self.machines
        closed = all(machine.control.submit(lambda: None).cancelled() for machine in self.machines)
        return closed and not any(thread.name.startswith("sevplug") for thread in threading.enumerate())


@pytest.fixture(scope="session")
def _imported(tmp_path_factory: pytest.TempPathFactory) -> None:
    """An inner run takes back what it imported, and the same again is another module: so all is imported before."""
    folder = tmp_path_factory.mktemp("imported")
    with PausedMachineFactory(folder, Owner(folder), lambda _heading, _text: None) as factory:
        guest = factory()
        guest.resume()
        guest.wait()


@pytest.fixture
def inner_run(pytester: pytest.Pytester, _imported: None) -> Iterator[InnerRun]:
    found = InnerRun(pytester)
    yield found
    for machine in found.machines:
        machine.close()
