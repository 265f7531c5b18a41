"""What makes the guests of one test, and ends every one of them whatever became of the test."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Generic, Self, TypeVar, Unpack

import attrs

from sevplug.board.chardev.address import UNIX_PATH_MAX
from sevplug.board.console import Pattern
from sevplug.core.config import MachineConfig
from sevplug.core.errors import SevplugError
from sevplug.core.machine import Machine
from sevplug.core.plugins import Selection, load_plugins
from sevplug.testing.guest import Guest
from sevplug.testing.kept import KeptGuest
from sevplug.testing.owner import Owner
from sevplug.testing.paused import PausedGuest
from sevplug.testing.settings import Settings, configuration

DEFAULT_TIMEOUT = 60.0

G = TypeVar("G", Guest, PausedGuest)


class _Factory(Generic[G]):
    """What both factories have: the guests of a test and their end."""

    _kind = "guest"

    def __init__(self, folder: Path, owner: Owner, tell: Callable[[str, str], None]) -> None:
        """``tell`` is given (a heading, a text) about each guest at the end, for whoever looks at a failed test."""
        self._folder = folder
        self._owner = owner
        self._tell = tell
        self._guests: list[G] = []

    def _config(
        self, config: MachineConfig | None, settings: Settings, plugins: Iterable[object]
    ) -> tuple[MachineConfig, Callable[[MachineConfig], Machine]]:
        """The configuration, and what makes a machine with these plug-ins of the one that becomes of it."""
        words: tuple[str, ...] = ()
        if config is None:
            config, words = configuration(settings, self._owner)
        elif settings:
            raise TypeError(f"{', '.join(settings)}: a MachineConfig says all of it, expected one of the two")
        given = tuple(plugins)
        words += tuple(word for word in given if isinstance(word, str))
        others = [plugin for plugin in given if not isinstance(plugin, str)]
        manager = load_plugins(Selection.parse(words), *others)
        return config, lambda final: Machine(final, manager)

    def _made(self, make: Callable[[], G]) -> G:
        """The guest that ``make`` makes, which will be ended; what is refused is told at the test's own line."""
        __tracebackhide__ = True
        try:
            guest = make()
        except SevplugError as error:
            raise error.with_traceback(None) from error.__cause__
        self._guests.append(guest)
        return guest

    def close(self) -> None:
        """End all guests, the newest first; what goes wrong with one is raised when all have had their turn."""
        with contextlib.ExitStack() as stack:
            for number, guest in enumerate(self._guests, start=1):
                stack.callback(self._close, number, guest)
            self._guests = []

    def _close(self, number: int, guest: G) -> None:
        try:
            guest.close()
        finally:
            if text := guest.report():
                self._tell(f"sevplug {self._kind} {number}", text)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()


class MachineFactory(_Factory[Guest]):
    """Makes guests that run in the test's thread; the fixture ``sevplug_machine``."""

    def __call__(
        self,
        config: MachineConfig | None = None,
        *,
        plugins: Iterable[object] = (),
        timeout: float = DEFAULT_TIMEOUT,
        **settings: Unpack[Settings],
    ) -> Guest:
        """A guest that is built and has not been launched; it runs while the test waits for it.

        ``config`` says all of it, or ``settings`` what differs from the embedded guest (see `Settings`).  ``plugins``:
        words as ``-P`` takes them, and plug-ins of the test's own: objects, classes or modules with hooks.
        ``timeout``: see `Guest`.  `ConfigError` for what no guest can be made of.
        """
        __tracebackhide__ = True

        def make() -> Guest:
            final, build = self._config(config, settings, plugins)
            return Guest(build(final), timeout)

        return self._made(make)


class BootOnce(_Factory[Guest]):
    """Boots guests that many tests share, one after the other; the fixture ``sevplug_boot_once``."""

    def __call__(
        self,
        until: Pattern,
        config: MachineConfig | None = None,
        *,
        plugins: Iterable[object] = (),
        timeout: float = DEFAULT_TIMEOUT,
        **settings: Unpack[Settings],
    ) -> KeptGuest:
        """Boot a guest until it has said ``until``, a regular expression, and keep it there.

        The other arguments are those of `MachineFactory`.  `ConfigError` and `LaunchRefused` for what cannot be
        launched, `ConsoleError` where it did not come so far.
        """
        __tracebackhide__ = True

        def make() -> Guest:
            final, build = self._config(config, settings, plugins)
            return Guest(build(final), timeout)

        guest = self._made(make)
        guest.machine.start_launch()
        guest.expect(until)
        return KeptGuest(guest, guest.snapshot())


class PausedMachineFactory(_Factory[PausedGuest]):
    """Makes guests that wait for their owner, paused; the fixture ``sevplug_paused_machine``."""

    _kind = "paused guest"
    _sockets: Path | None = None

    def __call__(
        self,
        config: MachineConfig | None = None,
        *,
        plugins: Iterable[object] = (),
        timeout: float = DEFAULT_TIMEOUT,
        **settings: Unpack[Settings],
    ) -> PausedGuest:
        """A guest that was launched, and runs on a thread of its own when a QMP client says ``cont``.

        The arguments are those of `MachineFactory`; of ``config``, what it says of QMP and of pausing is replaced.
        `ConfigError` and `LaunchRefused` for what cannot be launched.
        """
        __tracebackhide__ = True

        def make() -> PausedGuest:
            final, build = self._config(config, settings, plugins)
            qmp = self._socket()
            address = "unix:" + str(qmp).replace(",", ",,")
            waiting = attrs.evolve(final, paused=True, options={**final.options, "qmp": address})
            return PausedGuest(build(waiting), qmp, timeout)

        return self._made(make)

    def close(self) -> None:
        """As above, and remove the folder of sockets where there had to be one."""
        try:
            super().close()
        finally:
            if self._sockets is not None:
                shutil.rmtree(self._sockets, ignore_errors=True)

    def _socket(self) -> Path:
        """A path for the next socket: in the test's folder, unless that is too deep for the address of a socket."""
        name = f"qmp{len(self._guests) + 1}"
        if len(bytes(self._folder / name)) <= UNIX_PATH_MAX:
            return self._folder / name
        if self._sockets is None:
            self._sockets = Path(tempfile.mkdtemp(prefix="sevplug-", dir="/tmp"))
        return self._sockets / name
