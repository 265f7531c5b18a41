"""A machine that runs on a thread of its own from its launch to its close, as in a process of its own."""

from __future__ import annotations

import concurrent.futures
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any, TypeVar

from sevplug.core.errors import SevplugError
from sevplug.core.machine import Machine
from sevplug.core.result import QUIT, RunResult

T = TypeVar("T")
# Wall seconds that the machine gets to do what it is told; only a plug-in that never returns takes longer.
_PATIENCE = 10.0


class MachineThread:
    """The life of ``machine`` on a thread, which closes it when the guest has ended.

    ``on_end`` is called on the thread when all is over.  ``result``, ``summary``: of a guest that has ended.
    ``error``: what ended the thread instead.  A machine whose launch is refused is closed, and the error raised, before
    there is a thread.
    """

    def __init__(self, machine: Machine, on_end: Callable[[], None] = lambda: None) -> None:
        self.machine = machine
        self.result: RunResult | None = None
        self.summary: dict[str, Any] = {}
        self.error: BaseException | None = None
        self._on_end = on_end
        try:
            machine.start_launch()
        except BaseException:
            machine.close()
            raise
        # A thread that cannot be ended must not keep the test run from its own end.
        self._thread = threading.Thread(target=self._live, name="sevplug-machine", daemon=True)
        self._thread.start()

    @property
    def over(self) -> bool:
        """Whether the machine has been closed."""
        return not self._thread.is_alive()

    def call(self, function: Callable[[Machine], T]) -> T:
        """Have the machine's thread call ``function`` between two instructions; what it returns.

        `SevplugError` when the guest has ended, or does not answer.
        """
        request = self.machine.control.submit(lambda: function(self.machine))
        try:
            return request.result(_PATIENCE)
        except concurrent.futures.CancelledError:
            raise SevplugError("the guest has ended") from None
        except concurrent.futures.TimeoutError:
            if request.done():
                raise  # the function's own
            raise SevplugError(f"the machine does not answer; its thread is in\n{self._stack()}") from None

    def end(self) -> None:
        """End the guest, wait until all is given back, and raise `error` if there is one.

        `SevplugError`, with the place where it hangs, when the thread does not end.
        """
        machine = self.machine
        machine.control.submit(lambda: machine.end(QUIT, "the test is over"))
        self._thread.join(_PATIENCE)
        if self._thread.is_alive():
            raise SevplugError(f"the machine did not end within {_PATIENCE:g} s; its thread is in\n{self._stack()}")
        self.check()

    def check(self) -> None:
        """Raise `error`, once."""
        __tracebackhide__ = True
        error, self.error = self.error, None
        if isinstance(error, SevplugError):
            # It says enough, and its cause, where there is one, has the place.
            raise error.with_traceback(None) from error.__cause__
        if error is not None:
            raise error

    def _live(self) -> None:
        try:
            try:
                run = self.machine.run()
                self.summary = self.machine.summary(run)
                self.result = run
            finally:
                self.machine.close()
        except BaseException as error:
            self.error = error
        finally:
            self._on_end()

    def _stack(self) -> str:
        frame = sys._current_frames().get(self._thread.ident or 0)
        return "" if frame is None else "".join(traceback.format_stack(frame))
