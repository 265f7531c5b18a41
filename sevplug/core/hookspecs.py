"""Every hook of sevplug: when it runs, who calls it, what None means, and how often.

A hook has one of two kinds.  *All*: each implementation is called and results are ignored.  *First*: implementations
are called in order (last registered first) until one returns something other than None.  A first hook has three
outcomes: a value means handled, None means "not mine", and ``raise GuestFault(vector, code)`` puts an exception into
the guest.  Only the core decides what happens when nobody handles.

Hot and warm hooks are resolved once, when the machine is made (`sevplug.core.binding`); plug-ins are fixed from then
on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    import click

    from sevplug.core.launch import Launch, LaunchMeasurement, LaunchRequest, LaunchSecret
    from sevplug.core.machine import Machine
    from sevplug.core.result import End
    from sevplug.core.snapshot.saved_state import SavedState
    from sevplug.core.vcpu import CpuidRegisters, VCpu
    from sevplug.core.views import PageCipher, PageEvent

PROJECT = "sevplug"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def add_hookspecs(manager: pluggy.PluginManager) -> None:
    """All, cold: a plug-in publishes hook specifications of its own with ``manager.add_hookspecs``.

    Called by the core right after the plug-ins are registered, before any other hook.
    """


@hookspec
def add_options(command: click.Command) -> None:
    """All, cold: a plug-in appends ``click.Option`` objects to ``command.params``.

    Called by the command line for each command that builds a machine; values arrive in ``MachineConfig.options``
    under the option's name.
    """


@hookspec
def add_commands(cli: click.Group) -> None:
    """All, cold: a plug-in adds commands to the ``sevplug`` group with ``cli.add_command``."""


@hookspec
def machine_init(machine: Machine) -> None:
    """All, cold: a machine exists, its memory and bus are empty of devices.

    The place to take objects and machine options (`Machine.take_objects`, `Machine.take_option`) and to check them;
    `ConfigError` ends the construction.
    """


@hookspec
def add_devices(machine: Machine) -> None:
    """All, cold: a plug-in calls ``machine.add_device`` for each device it brings; runs once, after `machine_init`."""


@hookspec
def add_launch_regions(machine: Machine) -> None:
    """All, cold: a plug-in calls ``machine.add_launch_region`` for initial memory beyond the firmware.

    Runs once, after the images are placed and before `launch_start`; regions are launched in the order of adding.
    """


@hookspec
def vcpu_init(cpu: VCpu) -> None:
    """All, cold: a vCPU has its power-on state and has not run; called again after a reset.

    The place for registers, feature bits and objects in ``cpu.private``.
    """


@hookspec(firstresult=True)
def cpuid(cpu: VCpu, leaf: int, subleaf: int, registers: CpuidRegisters) -> CpuidRegisters | None:
    """First, warm: the guest executes CPUID.  ``registers`` is the CPU model's answer; None leaves it."""


@hookspec(firstresult=True)
def rdmsr(cpu: VCpu, index: int) -> int | None:
    """First, warm: the guest reads MSR ``index``, and the engine does not keep it itself.

    Returns the 64-bit value.  When every answer is None, the core's own table answers, else the guest takes #GP(0).
    """


@hookspec(firstresult=True)
def wrmsr(cpu: VCpu, index: int, value: int) -> bool | None:
    """First, warm: the guest writes MSR ``index``.  True: done.  When every answer is None: as in `rdmsr`."""


@hookspec(firstresult=True)
def translate(cpu: VCpu, address: int, access: int) -> int | None:
    """First, hot: an address met by a page walk, with every bit the guest gave it (bits 51:0).

    ``access`` is a combination of `sevplug.core.vcpu.Access`.  Returns a guest-physical address, with
    `sevplug.core.vcpu.PRIVATE` or-ed in when the access is to the private view; None leaves the address as it is.
    Called for CR3, for each table and for the page itself, on a miss of the translation cache only.
    """


@hookspec(firstresult=True)
def address_rule(cpu: VCpu) -> int | None:
    """First, cold: a plug-in whose `translate` does no more than to strip one bit may say so as data.

    Returns the mask of that bit; an address that carries it is private.  When the plug-in that answers is the only
    one that implements `translate`, the core applies the mask itself and makes no call.
    """


@hookspec(firstresult=True)
def memory_cipher(machine: Machine) -> PageCipher | None:
    """First, cold: a plug-in gives the cipher between the private and the shared form of memory.

    Asked once, before the engine is there.  None from all: memory has but one form.  What `translate` says of an
    access, PRIVATE or not, decides which form it sees.
    """


@hookspec
def page_event(cpu: VCpu, event: PageEvent) -> None:
    """All, warm: a page was accessed through another view than before, or otherwise than was meant.

    Only where a plug-in gave a cipher; about a thousand times in the boot of a kernel.  RIP is at the instruction.
    """


@hookspec(firstresult=True)
def unknown_opcode(cpu: VCpu, code: bytes) -> int | None:
    """First, warm: an instruction that the engine does not know; ``code`` is up to 15 bytes from RIP on.

    Returns the instruction's length in bytes when it was emulated (RIP is moved behind it); None: the guest takes #UD.
    """


@hookspec(firstresult=True)
def intercept(cpu: VCpu, code: int, info: int) -> bool | None:
    """First, warm: an instruction that a hypervisor would trap, before any effect.

    ``code`` is the exit code of the APM, volume 2, appendix C (0x72 CPUID, 0x7C MSR, 0x6E RDTSC, 0x78 HLT, 0x81
    VMMCALL, …); ``info`` is EXITINFO1 (for an MSR: 0 read, 1 write).  True: handled, RIP already moved by the
    plug-in.  None: the core does what the machine would.  `cpuid`, `rdmsr` and `wrmsr` are its convenient forms;
    RDTSC has none.  While a plug-in implements it, compiled code answers no exit: a tenth of a kernel's boot.
    """


@hookspec(firstresult=True)
def guest_exit(cpu: VCpu, end: End) -> End | None:
    """First, warm: the guest has stopped for good, for the reason ``end``.

    A plug-in that knows better returns its own `sevplug.core.result.End`; None keeps it.
    """


@hookspec(firstresult=True)
def launch_start(machine: Machine, request: LaunchRequest) -> object | None:
    """First, cold: a launch begins.

    The plug-in that owns this kind of launch returns its context, an object the core keeps in ``launch.context`` and
    never looks into.  None from all: the guest is a plain one, and no further launch hook is called.
    """


@hookspec
def launch_update(machine: Machine, launch: Launch, gpa: int, data: bytes, page_type: str | int) -> None:
    """All, cold: initial memory at ``gpa`` enters the launch.

    Every plug-in gets the same immutable plaintext, so the order of plug-ins cannot matter.  ``page_type`` is open.
    """


@hookspec(firstresult=True)
def launch_measure(machine: Machine, launch: Launch) -> LaunchMeasurement | None:
    """First, cold: all regions are in; returns the measurement.  None from all: there is none to ask for."""


@hookspec(firstresult=True)
def launch_secret(machine: Machine, launch: Launch, packet: LaunchSecret) -> int | None:
    """First, cold: a sealed packet arrives in state launch-secret.

    Returns the guest-physical address the secret was placed at; raises `LaunchRefused` when the packet is refused.
    None from all: secrets are refused, no plug-in takes them.
    """


@hookspec
def finish(machine: Machine, launch: Launch) -> None:
    """All, cold: the guest is about to run for the first time; the launch cannot be changed afterwards."""


@hookspec
def snapshot_save(machine: Machine) -> SavedState | None:
    """All, cold: a snapshot of ``machine`` is made, between two instructions; the plug-in's own state for it.

    None: there is nothing to save.  A plug-in that is an object with attributes, or has hung something on the machine,
    and does not implement this lets no snapshot be made.  `SnapshotError` when it cannot be just now.
    """


@hookspec
def snapshot_load(machine: Machine, state: Mapping[str, Any]) -> None:
    """All, cold: ``state`` is what the plug-in's `snapshot_save` gave; devices have theirs already, the CPU not yet.

    KeyError, TypeError or ValueError for what cannot have come from there.
    """


@hookspec
def notify(machine: Machine, event: str, fields: Mapping[str, Any]) -> None:
    """All, cold: something of `sevplug.core.events` happened; ``fields`` holds what is given beside its name there."""


@hookspec
def summary(machine: Machine, document: dict[str, Any]) -> None:
    """All, cold: the machine has ended; a plug-in adds its own key to the summary ``document`` (JSON values only)."""


@hookspec
def machine_close(machine: Machine) -> None:
    """All, cold: the machine is being taken down, whatever happened; give back sockets, threads and files."""
