"""The life of a guest: build, launch, run, end.

Data flows one way along it.  What kind of launch this is, which devices there are and who listens is the plug-ins'
business; the machine keeps the order.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import attrs

from sevplug.core import events, result
from sevplug.core.binding import bind_each
from sevplug.core.bus import Bus, Device
from sevplug.core.clock import Clock, HostClock
from sevplug.core.config import MachineConfig, ObjectSpec
from sevplug.core.control import Control
from sevplug.core.engine import DebugUnit, Engine
from sevplug.core.errors import ConfigError, SnapshotError
from sevplug.core.interrupts import InterruptSource, NoInterrupts
from sevplug.core.launch import Launch, LaunchRegion, LaunchSecret
from sevplug.core.launcher import Launcher
from sevplug.core.memory import GuestMemory
from sevplug.core.placement import place_firmware
from sevplug.core.plugins import PluginManager, load_plugins
from sevplug.core.result import Counters, End, RunResult
from sevplug.core.vcpu import VCpu
from sevplug.core.views import PageEvent

if TYPE_CHECKING:
    from sevplug.core.snapshot.snapshot import Snapshot

# A guest that only the host can wake is left asleep in steps of this many seconds, and for how long in all.
_SLEEP_SECONDS, _SLEEP_LIMIT = 0.05, 1.0


class Machine:
    """One guest.

    Use it as a context manager, or call `close`.  All methods belong to the thread that runs the machine; other
    threads go through ``machine.control.submit``.

    Attributes of interest to plug-ins: ``config``, ``memory`` (guest-physical space as seen from outside the CPU),
    ``bus``, ``clock``, ``cpu``, ``launch``, ``control``, ``counters``, ``plugins`` (the pluggy manager),
    ``interrupt_source`` (an interrupt controller sets itself here), ``private`` (objects of plug-ins, by name),
    ``failure`` (the exception that ended the machine, for those who clean up; None where it came to its end).
    """

    def __init__(self, config: MachineConfig, plugins: PluginManager | None = None) -> None:
        self.config = config
        self.plugins = load_plugins() if plugins is None else plugins
        self.memory = GuestMemory(config.memory)
        self.bus = Bus()
        self.clock: Clock = HostClock() if config.clock == "host" else Clock()
        self.control = Control()
        self.counters = Counters()
        self.launch = Launch()
        self.interrupt_source: InterruptSource = NoInterrupts()
        self.private: dict[str, object] = {}
        self.devices: list[Device] = []
        # Called when the machine has gone back to a snapshot, by whoever has heard what the guest said since.
        self.on_restore: list[Callable[[], None]] = []
        self.status = "prelaunch"
        self.failure: BaseException | None = None
        self._objects = list(config.objects)
        self._machine_options = dict(config.machine_options)
        self._end: End | None = None
        self._paused = config.paused
        if self._paused:
            self.clock.stand_still()
        self._launcher = Launcher(self)
        self._closed = False
        self._engine: Engine | None = None
        try:
            with self.plugins.explained():
                self._build()
        except BaseException as error:
            self.failure = error
            self.close()
            raise

    # -- build ---------------------------------------------------------------------------------------------------

    def _build(self) -> None:
        hook = self.plugins.hook
        hook.machine_init(machine=self)
        self._refuse_leftovers()
        hook.add_devices(machine=self)
        self._launcher.regions.extend(place_firmware(self.memory, self.config.boot))
        cipher = hook.memory_cipher(machine=self)
        self._tell_of_page = bind_each(self.plugins, "page_event")
        if cipher is not None:
            self.memory.use_cipher(cipher)
            for entry in self.memory.ranges:
                if entry.forms is not None:
                    entry.forms.tell = self.page_event
        self._engine = Engine(self)
        self.control.kick = self._engine.kick
        hook.add_launch_regions(machine=self)
        self._power_on()
        self.notify(events.MACHINE_BUILT, memory=self.config.memory, cpu=self.config.cpu, plugins=self.plugins.names)

    @property
    def engine(self) -> Engine:
        """The CPU engine; there from the end of construction on."""
        assert self._engine is not None
        return self._engine

    @property
    def cpu(self) -> VCpu:
        """The one virtual CPU."""
        return self.engine.cpu

    @property
    def debug(self) -> DebugUnit:
        """Breakpoints and single steps; at a breakpoint the machine is paused, with the status ``debug``."""
        return self.engine.debug

    @property
    def ended(self) -> End | None:
        """Why the guest has ended, as far as the machine itself knows; None while it can go on."""
        return self._end

    def take_objects(self, *types: str) -> list[ObjectSpec]:
        """Hand over the ``-object`` specifications of these types (hook ``machine_init`` only)."""
        taken = [spec for spec in self._objects if spec.type in types]
        self._objects = [spec for spec in self._objects if spec.type not in types]
        return taken

    def take_option(self, *names: str) -> str | None:
        """Hand over the first ``-machine`` option of these names (synonyms), or None (hook ``machine_init`` only)."""
        for name in names:
            if name in self._machine_options:
                return self._machine_options.pop(name)
        return None

    def _refuse_leftovers(self) -> None:
        for spec in self._objects:
            raise ConfigError(f"object type {spec.type!r} (id={spec.id}) is not known to any enabled plug-in")
        for name in self._machine_options:
            raise ConfigError(f"machine option {name!r} is not known to any enabled plug-in")

    def add_device(self, device: Device) -> None:
        """Add a device to the board (hook ``add_devices`` only)."""
        self.devices.append(device)
        device.attach(self)

    def add_launch_region(self, region: LaunchRegion) -> None:
        """Place initial memory and have it launched after the firmware (hook ``add_launch_regions`` only).

        `ConfigError` when the region is not in RAM.
        """
        if not self.memory.holds(region.gpa, region.size):
            raise ConfigError(
                f"{region.name} at {region.gpa:#x}, {region.size} bytes: expected a place inside guest memory"
            )
        self.memory.write(region.gpa, region.view)
        self._launcher.regions.append(region)

    def page_event(self, event: PageEvent) -> None:
        """Tell plug-ins of an access through an unlikely view."""
        for tell in self._tell_of_page:
            tell(self.cpu, event)

    def reserved_bits(self, linear: int) -> None:
        """A walk for the page at ``linear`` met an entry with reserved bits set; told where memory has two forms."""
        if self.memory.ranges[0].forms is not None:
            self.page_event(PageEvent("reserved", 0, linear, private=True))

    # -- launch --------------------------------------------------------------------------------------------------

    def start_launch(self) -> None:
        """Measure the initial memory, up to the state in which secrets can be injected.

        Nothing happens for a plain guest, or when the launch was started before.
        """
        self._launcher.start()

    def inject_secret(self, packet: LaunchSecret) -> int:
        """Hand a sealed packet to the plug-in that takes secrets; returns where its plaintext was placed.

        `LaunchRefused` with the firmware's status when it is not accepted; guest memory is unchanged then.
        """
        return self._launcher.inject(packet)

    def finish_launch(self) -> None:
        """The guest is about to execute something; harmless when it did before."""
        self._launcher.finish()

    # -- run -----------------------------------------------------------------------------------------------------

    def run(self, timeout: float | None = None) -> RunResult:
        """Launch if that has not been done, run until the guest ends, and say how it ended.

        ``timeout``: wall seconds.  With ``config.paused`` the guest waits for `resume` through ``control``.
        """
        started = time.monotonic()
        if not self.advance(timeout):
            self.end(result.TIMEOUT, f"no end within {timeout:g} s, at rip {self.cpu.rip:#x}")
        assert self._end is not None
        self.status = "shutdown"
        with self.plugins.explained():
            end = self.plugins.hook.guest_exit(cpu=self.cpu, end=self._end) or self._end
        run = RunResult(end.result, end.detail, time.monotonic() - started)
        self.notify(events.RUN_END, result=run.result, detail=run.detail, seconds=run.seconds)
        return run

    def advance(self, timeout: float | None = None, until: Callable[[], bool] = lambda: False) -> bool:
        """Launch if that has not been done, and run until the guest has ended or ``until`` is true; `run` may follow.

        ``timeout``: wall seconds; False when they passed first.  ``until`` is asked whenever the engine was left: what
        makes it true calls `Engine.leave`, so that two runs leave at the same place.
        """
        deadline = float("inf") if timeout is None else time.monotonic() + timeout
        self.start_launch()
        slept = 0.0
        with self.plugins.explained(), self.engine.watching(deadline):
            if not self._paused:
                self.resume()
            while self._end is None and not until():
                if not self._paused:
                    # A request may have put back a snapshot, and then the guest stands still.
                    self.resume()
                if self._paused and not self.debug.stepping:
                    self.control.serve(min(0.2, max(0.001, deadline - time.monotonic())))
                elif self.engine.run():
                    slept += _SLEEP_SECONDS
                    self.control.serve(_SLEEP_SECONDS)
                    if slept >= _SLEEP_LIMIT and not self.control.attended:
                        self.end(result.HANG, f"halted at rip {self.cpu.rip:#x}, and no timer or device will wake it")
                else:
                    slept = 0.0
                    self.control.serve()
                if time.monotonic() >= deadline and self._end is None and not until():
                    return False
        return True

    def advance_to(self, address: int, timeout: float | None = None) -> bool:
        """Run until the instruction at linear ``address`` is next; False when the guest ended or the time passed first.

        As behind `advance`, `run` goes on.  ``timeout``: wall seconds.
        """
        self.debug.breakpoints.insert(address)
        try:
            self.advance(timeout, lambda: self.status == "debug")
            reached = self.status == "debug" and self._end is None
        finally:
            self.debug.breakpoints.remove(address)
        self._paused = self._paused and not reached
        return reached and self.debug.linear_rip == address

    def resume(self) -> None:
        """Let the guest run; the launch is finished at the first time."""
        if self.status == "running" or self._end is not None:
            return
        self.finish_launch()
        # A guest that starts over, hours later, is not to depend on what became of the files.
        if not self.config.reboot:
            for image in self.config.boot.placed:
                image.let_go()
        self._paused = False
        self.status = "running"
        self.clock.go_on()
        self.notify(events.RUN_RESUME)

    def pause(self, status: str = "paused") -> None:
        """Stop the guest between two instructions; `resume` goes on.

        ``status``: ``debug`` where a breakpoint did it, as in QEMU.
        """
        if self.status != "running":
            return
        self._paused = True
        self.status = status
        self.clock.stand_still()
        self.engine.leave()
        self.notify(events.RUN_STOP)

    def end(self, ended: str, detail: str) -> None:
        """End the run with ``ended`` (a key of `result.RESULTS`); the first end counts."""
        if self._end is None:
            self._end = End(ended, detail)
        if self._engine is not None:
            self._engine.leave()

    def shutdown_request(self, detail: str) -> None:
        """The guest switches itself off; called by devices."""
        self.notify(events.GUEST_SHUTDOWN, guest=True, reason="guest-shutdown")
        self.end(result.SHUTDOWN, detail)

    def quit(self) -> None:
        """Whoever controls the machine ends it."""
        self.notify(events.GUEST_SHUTDOWN, guest=False, reason="host-qmp-quit")
        self.end(result.QUIT, "ended from outside")

    def reset_request(self, detail: str) -> None:
        """The guest asks for a reset; it ends the run unless ``config.reboot`` lets it start over."""
        self.notify(events.GUEST_RESET, guest=True, reason="guest-reset")
        if self.config.reboot:
            self.engine.defer(self.reset)
        else:
            self.end(result.RESET, detail)

    def reset(self) -> None:
        """Bring devices, the CPU and what is placed at power-on back; other RAM and the launch keep what they have.

        Between two instructions only (`Engine.defer` arranges that).
        """
        for region in self._launcher.regions:
            if region.reload:
                self.memory.load(region.gpa, region.data, private=self.launch.context is not None)
        for device in self.devices:
            device.reset()
        self._power_on()

    def system_reset(self) -> None:
        """A reset asked for from outside (QMP's ``system_reset``)."""
        self.notify(events.GUEST_RESET, guest=False, reason="host-qmp-system-reset")
        self.engine.defer(self.reset)

    def _power_on(self) -> None:
        self.engine.power_on()
        self.plugins.hook.vcpu_init(cpu=self.cpu)
        self.engine.bind_translation()

    # -- snapshots -----------------------------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        """The whole machine at this moment, as a value; it goes on as `restore` would have it go on.

        Where the guest stands still: before `run`, behind `advance`, in a function given to ``control.submit``.
        `SnapshotError` in the middle of an instruction, before the launch, when the guest has ended, and when a plug-in
        or a device cannot be saved.
        """
        if self._end is not None or self._closed:
            raise SnapshotError("the guest has ended: there is nothing left to make a snapshot of")
        if not self._launcher.started:
            raise SnapshotError("the guest was not launched: a snapshot is made of one that was")
        from sevplug.core.snapshot.machine_state import take  # only for those who want one

        with self.plugins.explained():
            taken = take(self)
        self.notify(events.SNAPSHOT_SAVE, memory=taken.image.size)
        return taken

    def restore(self, snapshot: Snapshot) -> None:
        """Become what ``snapshot`` is of, at the cost of the pages that were touched since; `run` goes on from there.

        ``snapshot``: of this machine, or of one that was built from the same configuration, images and plug-ins.  What
        is the host's (sockets, files, logs, whether it starts paused) stays this machine's.  `SnapshotError` when it is
        of another machine; this one is unchanged then.
        """
        if self._closed:
            raise SnapshotError("the machine was closed")
        from sevplug.core.snapshot.machine_state import put_back  # only for those who have one

        with self.plugins.explained():
            put_back(self, snapshot)
        self.notify(events.SNAPSHOT_RESTORE, memory=snapshot.image.size)

    def save_life(self) -> dict[str, Any]:
        """Where the machine is in its life, as plain data."""
        return {
            "started": self.status != "prelaunch",
            **self._launcher.save(),
            "counters": attrs.asdict(self.counters),
        }

    def load_life(self, state: Mapping[str, Any]) -> None:
        """Put back what `save_life` gave; the launch's context is its plug-in's to give.  The guest stands still."""
        self._launcher.load(state)
        for name, count in state["counters"].items():
            setattr(self.counters, attrs.fields_dict(Counters)[name].name, int(count))
        self.status = "paused" if state["started"] else "prelaunch"
        self._paused = self.config.paused
        self._end = None

    # -- end -----------------------------------------------------------------------------------------------------

    def notify(self, event: str, **fields: Any) -> None:
        """Tell every plug-in that something of `sevplug.core.events` happened."""
        with self.plugins.explained():
            self.plugins.hook.notify(machine=self, event=event, fields=fields)

    def warn(self, text: str) -> None:
        """Tell the user something that is no error; one line."""
        self.notify(events.WARNING, text=text)

    def summary(self, run: RunResult, *, ram_digest: bool = False) -> dict[str, Any]:
        """The run as a JSON document; plug-ins add their keys.

        ``ram_digest`` adds the key ``ram_sha256``, and tells it as an event.
        """
        document: dict[str, Any] = {
            "result": run.result,
            "detail": run.detail,
            "seconds": round(run.seconds, 3),
            "plugins": self.plugins.names,
            "counters": self.engine.count(),
            "page_walk": self.engine.page_walk,
        }
        counts = self.memory.page_counts()
        if counts is not None:
            document["memory"] = attrs.asdict(counts)
        if ram_digest:
            document["ram_sha256"] = self.memory.ram_digest()
            self.notify(events.RUN_RAM, size=self.memory.ram_size, sha256=document["ram_sha256"])
        with self.plugins.explained():
            self.plugins.hook.summary(machine=self, document=document)
        return document

    def close(self) -> None:
        """Give everything back; harmless when called again."""
        if self._closed:
            return
        self._closed = True
        self.control.close()
        # In reverse order, and each of them whatever the others do.
        with self.plugins.explained(), contextlib.ExitStack() as stack:
            stack.callback(self.memory.close)
            if self._engine is not None:
                stack.callback(self._engine.close)
            for device in self.devices:
                stack.callback(device.close)
            for close in reversed(bind_each(self.plugins, "machine_close")):
                stack.callback(close, self)

    def __enter__(self) -> Machine:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        self.failure = error
        self.close()
