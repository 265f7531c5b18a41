"""The plug-in ``report``: one HTML file that shows what happened to a guest (``--report FILE``).

It listens to what logging listens to, samples memory, and reads the rest when the machine is put away, so a report is
there for every end: a guest that panicked, a launch that was refused, Ctrl-C, a plug-in that failed.  Only a
configuration that is refused leaves the file alone, since nothing was there to look at.  The file is written whole or
not at all.  Without the option nothing of it runs, and nothing of it is imported.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sevplug.core import events
from sevplug.core.errors import ConfigError, PluginError
from sevplug.core.hookspecs import hookimpl

if TYPE_CHECKING:
    import click

    from sevplug.core.machine import Machine
    from sevplug.core.reserved_file import ReservedFile
    from sevplug.plugins.report.collect import Port
    from sevplug.plugins.report.sampling import Sampler
    from sevplug.plugins.report.values import Moment, Outcome, Report

NAME = "report"
_OPTION = "--report"
# Moments at which memory is looked at, besides the regular ones and those of the plug-in phases.
_SAMPLED = frozenset(
    {events.MACHINE_BUILT, events.LAUNCH_MEASURE, events.LAUNCH_SECRET, events.RUN_RESUME, events.RUN_END, "run.phase"}
)
# Who controls a guest may stop it and let it go on as often as they like.
_MOST_MOMENTS = 2000


class ReportPlugin:
    """The report of one machine, if there is to be one."""

    def __init__(self) -> None:
        self._file: ReservedFile | None = None
        self._started = time.monotonic()
        self._date = ""
        self._moments: list[Moment] = []
        self._left_out = 0
        self._regions: dict[int, str] = {}
        self._secrets: list[bytes] = []
        self._summary: dict[str, Any] = {}
        self._ports: list[Port] = []
        self._sampler: Sampler | None = None
        self._end: Mapping[str, Any] | None = None
        self._built = False

    @hookimpl
    def add_options(self, command: click.Command) -> None:
        """``--report``."""
        import click  # only for those who come from the command line

        command.params.append(
            click.Option([_OPTION], metavar="FILE", help="Write what happened to the guest as one HTML page.")
        )

    @hookimpl(tryfirst=True)
    def machine_init(self, machine: Machine) -> None:
        """Reserve the file before anything is done; `ConfigError` when it cannot be written."""
        path = machine.config.options.get(NAME)
        if path is None:
            return
        from sevplug.core.reserved_file import ReservedFile
        from sevplug.plugins.report.sampling import Sampler

        self._file = ReservedFile(_OPTION, str(path))
        self._date = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S")
        self._sampler = Sampler(machine, self._started)

    @hookimpl(trylast=True)
    def add_devices(self, machine: Machine) -> None:
        """Listen to the ports of the board, where it has them."""
        if self._file is None:
            return
        from sevplug.board.debugcon import DebugConsole
        from sevplug.board.serial import Serial
        from sevplug.plugins.report.collect import Port

        serial, debug = machine.private.get("serial"), machine.private.get("debugcon")
        if isinstance(serial, Serial):
            self._ports.append(Port("Serial console", serial))
        if isinstance(debug, DebugConsole):
            self._ports.append(Port("Debug console", debug))

    @hookimpl
    def launch_update(self, gpa: int, data: bytes) -> None:
        """The digest of what is measured, for its line in the timeline."""
        if self._file is not None:
            from sevplug.plugins.report.collect import digest

            self._regions[gpa] = digest(data)

    @hookimpl(tryfirst=True)
    def notify(self, machine: Machine, event: str, fields: Mapping[str, Any]) -> None:
        """Keep the moment, and look at memory where it matters."""
        if self._file is None:
            return
        if event == events.MACHINE_BUILT:
            self._built = True
            if self._sampler is not None:
                self._sampler.start()
        elif event == events.LAUNCH_SECRET:
            from sevplug.plugins.report.hiding import secrets_of

            self._secrets += secrets_of(machine.memory.read(fields["gpa"], fields["size"], private=True, dma=False))
        elif event == events.RUN_END:
            self._end = fields
        self._keep(machine, event, fields)
        if event in _SAMPLED and self._sampler is not None:
            self._sampler.take()

    @hookimpl(trylast=True)
    def summary(self, document: dict[str, Any]) -> None:
        """The summary, once every other plug-in has added its part."""
        if self._file is not None:
            from sevplug.plugins.plain import plain_fields

            self._summary = plain_fields(document)

    @hookimpl
    def snapshot_save(self) -> None:
        """The report is of the run, whatever the guest goes back to."""

    @hookimpl(wrapper=True)
    def machine_close(self, machine: Machine) -> Generator[None, object, object]:
        """Write the report while everything is there still; what fails then is told when all have cleaned up."""
        failed = self._finish(machine) if self._file is not None else None
        result = yield
        if failed is not None and machine.failure is None:
            raise failed
        return result

    # -- inside --------------------------------------------------------------------------------------------------------

    def _keep(self, machine: Machine, event: str, fields: Mapping[str, Any]) -> None:
        from sevplug.plugins.plain import plain_fields, redact
        from sevplug.plugins.report.values import Moment

        if len(self._moments) >= _MOST_MOMENTS and event != events.RUN_END:
            self._left_out += 1
            return
        self._moments.append(
            Moment(
                time.monotonic() - self._started,
                machine.clock.now / 1e9,
                event,
                redact(plain_fields(fields)),
                machine.launch.state.value,
                self._regions.get(fields["gpa"]) if event == events.LAUNCH_UPDATE else None,
            )
        )

    def _finish(self, machine: Machine) -> Exception | None:
        """Write the file, unless there was nothing; the error where that failed."""
        assert self._file is not None
        try:
            samples = self._sampler.stop() if self._sampler is not None else ()
            refused = isinstance(machine.failure, ConfigError) and not isinstance(machine.failure, PluginError)
            if self._built or not refused:
                from sevplug.plugins.report.page import render

                self._file.write_text(render(self._report(machine, samples)))
        except Exception as error:
            if machine.failure is not None:
                # What ended the machine is told by others; this must not take its place.
                machine.warn(f"no report: {error}")
            return error
        finally:
            self._file.close()
        return None

    def _report(self, machine: Machine, samples: tuple[Any, ...]) -> Report:
        import platform

        import attrs

        from sevplug import __version__
        from sevplug.plugins.report import collect
        from sevplug.plugins.report.hiding import Hider
        from sevplug.plugins.report.sampling import final_map
        from sevplug.plugins.report.values import Report

        hider = Hider(self._secrets)
        return Report(
            name=str(machine.config.options.get("name") or ""),
            version=__version__,
            python=platform.python_version(),
            started=self._date,
            seconds=time.monotonic() - self._started,
            guest_seconds=machine.clock.now / 1e9,
            outcome=self._outcome(machine, hider.text),
            configuration=collect.configuration(machine.config),
            images=collect.images(machine.config.boot),
            plugins=collect.plugins(machine),
            moments=tuple(attrs.evolve(moment, fields=hider.value(moment.fields)) for moment in self._moments),
            moments_left_out=self._left_out,
            counters=machine.engine.count() if self._built else {},
            summary=hider.value(self._summary),
            samples=samples,
            ranges=final_map(machine),
            consoles=tuple(port.output(hider.bytes) for port in self._ports),
        )

    def _outcome(self, machine: Machine, hide: Any) -> Outcome:
        import traceback

        from sevplug.core.errors import SevplugError
        from sevplug.core.result import ORDERLY
        from sevplug.plugins.plain import describe
        from sevplug.plugins.report.values import Outcome

        failure = machine.failure
        if failure is not None and not isinstance(failure, KeyboardInterrupt):
            cause = failure.__cause__ or failure
            unexpected = not isinstance(cause, SevplugError)
            lines = "".join(traceback.format_exception(cause)) if unexpected else ""
            return Outcome("failed", hide(describe(failure)), False, hide(lines))
        if self._end is not None:
            result = str(self._end["result"])
            return Outcome(result, hide(str(self._end["detail"])), result in ORDERLY)
        return Outcome(
            "unfinished", "interrupted" if failure is not None else "the guest had not come to an end", False
        )
