"""The plug-in ``sev``: a guest that sees AMD SEV.

CPUID leaf 0x8000001F, MSR 0xC0010131, the C-bit in CR3 and page-table entries (AMD's APM, volume 2, section 15.34),
and the launch as an ``-object sev-emulated`` describes it.  Nothing is encrypted and nobody is protected.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import attrs

from sevplug.board.fw_cfg import FwCfg
from sevplug.core.errors import ConfigError, GuestFault, LaunchRefused
from sevplug.core.hookspecs import hookimpl
from sevplug.core.launch import Launch, LaunchRegion, LaunchRequest, LaunchState
from sevplug.core.machine import Machine
from sevplug.core.paging import CR0_PG, CR4_PAE
from sevplug.core.result import HALTED, REFUSED, TERMINATED, End
from sevplug.core.snapshot import SavedState
from sevplug.core.vcpu import PRIVATE, Access, CpuidRegisters, VCpu
from sevplug.plugins import sev_object, sev_platform
from sevplug.plugins.firmware_images import guid_table
from sevplug.plugins.ghcb_termination import MSR_GHCB, describe_termination
from sevplug.plugins.offered_kernel import IMAGES, changed_images
from sevplug.plugins.sev_object import SevObject
from sevplug.plugins.sev_platform import GuestPlatform, launch_keys, open_platform
from sevplug.sevapi import policy
from sevplug.sevapi.context import SevContext
from sevplug.sevapi.errors import SevApiError
from sevplug.sevapi.keys import TransportKeys
from sevplug.sevapi.memory_cipher import MemoryCipher, key_from_seed
from sevplug.sevapi.status import Status, fw_error_to_str
from sevplug.sevapi.version import EMULATED_API, ApiVersion

if TYPE_CHECKING:
    import click

CPUID_LEAF = 0x8000001F
CPUID_SEV = 1 << 1
MSR_SEV_STATUS = 0xC0010131
STATUS_SEV_ENABLED = 1 << 0
HANDLE = 1
_GENERAL_PROTECTION = 13
# What OvmfPkg/ResetVector/Ia32/AmdSev.asm of edk2 and arch/x86/kernel/sev_verify_cbit.S of Linux do.
_EARLY_HALT = "so end firmware and kernels that check SEV or the C-bit and find it other than CPUID says"
_MACHINE_OPTIONS = ("memory-encryption", "confidential-guest-support")


class SevPlugin:
    """The hooks, with the object of the one machine they serve."""

    def __init__(self) -> None:
        self._use(sev_object.parse(sev_object.DEFAULT_SPEC))
        self._hashed = False
        self._changed: list[str] = []
        self._platform: GuestPlatform | None = None

    def _use(self, chosen: SevObject) -> None:
        self.object = chosen
        self._mask = 1 << chosen.c_bit
        self._leaf = CpuidRegisters(CPUID_SEV, chosen.c_bit | chosen.reduced_bits << 6, 0, 0)

    @hookimpl
    def add_options(self, command: click.Command) -> None:
        """``--platform``."""
        import click  # only for those who come from the command line

        command.params.append(
            click.Option(
                ["--platform"],
                metavar="DIR",
                help="The emulated platform below the guest, made by sevplug platform new: for sessions and reports.",
            )
        )

    @hookimpl
    def machine_init(self, machine: Machine) -> None:
        """Take the object that the machine option names; with neither, a guest with the defaults."""
        self._machine = machine
        objects: dict[str, SevObject] = {}
        for spec in machine.take_objects(*sev_object.TYPES):
            if spec.id in objects:
                raise ConfigError(f"two SEV objects have the id {spec.id}")
            objects[spec.id] = sev_object.parse(spec)
        for option in _MACHINE_OPTIONS:
            wanted = machine.take_option(option)
            if wanted is not None:
                break
        if wanted is not None and wanted not in objects:
            raise ConfigError(f"machine option {option}={wanted}: no SEV object has that id")
        if wanted is None and len(objects) > 1:
            raise ConfigError(f"{len(objects)} SEV objects: say which one with memory-encryption=ID")
        if wanted is not None:
            self._use(objects[wanted])
        elif objects:
            self._use(next(iter(objects.values())))
        if self.object.defaulted_keys:
            names = " and ".join(self.object.defaulted_keys)
            machine.warn(f"no {names} given: 16 zero bytes are used, which everybody knows")
        folder = machine.config.options.get("platform")
        if folder is not None:
            self._platform = open_platform(str(folder), self.object)
            machine.private[sev_platform.NAME] = self._platform
        elif self.object.session is not None or self.object.certificate is not None:
            raise ConfigError(
                f"object id={self.object.id}: session-file, dh-cert-file: a session is for one platform, "
                f"expected --platform too"
            )

    # -- what the guest sees ---------------------------------------------------------------------------------------

    @hookimpl
    def cpuid(self, leaf: int) -> CpuidRegisters | None:
        """Leaf 0x8000001F: SEV, the C-bit's position, and how many address bits it costs (APM 3, E.4.17)."""
        return self._leaf if leaf == CPUID_LEAF else None

    @hookimpl
    def rdmsr(self, index: int) -> int | None:
        """SEV_STATUS says that SEV is active (APM 2, section 15.34.10)."""
        return STATUS_SEV_ENABLED if index == MSR_SEV_STATUS else None

    @hookimpl
    def wrmsr(self, index: int, value: int) -> bool | None:
        """SEV_STATUS is read-only; of the GHCB MSR, which only SEV-ES has, a guest's last word is understood."""
        if index == MSR_GHCB and (reason := describe_termination(value)) is not None:
            self._machine.end(TERMINATED, reason)
            return True
        if index == MSR_SEV_STATUS:
            raise GuestFault(_GENERAL_PROTECTION, 0)
        return None

    @hookimpl
    def translate(self, cpu: VCpu, address: int, access: int) -> int:
        """Strip the C-bit.

        Page tables and instructions are private whatever it says, and so is everything while no page table could have
        a C-bit: paging is off, or entries are 32 bits wide (APM 2, section 15.34.5).
        """
        if address & self._mask or access & (Access.TABLE | Access.FETCH):
            return address & ~self._mask | PRIVATE
        if not (cpu.get("cr0") & CR0_PG and cpu.get("cr4") & CR4_PAE):
            return address | PRIVATE
        return address

    @hookimpl
    def address_rule(self) -> int:
        """The same as data."""
        return self._mask

    @hookimpl
    def memory_cipher(self, machine: Machine) -> MemoryCipher | None:
        """Memory as the guest's key makes it, unless the object says ``encrypt-memory=off``."""
        return MemoryCipher(key_from_seed(machine.config.seed)) if self.object.encrypt_memory else None

    # -- the launch ------------------------------------------------------------------------------------------------

    @hookimpl
    def add_launch_regions(self, machine: Machine) -> None:
        """The table of kernel hashes goes where the firmware says (QEMU: sev_add_kernel_loader_hashes)."""
        boot = machine.config.boot
        if boot.firmware is None:
            if boot.direct and self.object.kernel_hashes:
                raise ConfigError(
                    "kernel-hashes=on: without firmware nobody checks them, the kernel itself is measured"
                )
            return
        try:
            table = guid_table(boot.firmware)
            if boot.kernel is None or not self.object.kernel_hashes:
                return
            # Only for a kernel behind firmware.
            from sevplug.sevapi.hash_table import NO_IMAGE_HASH, required_area, table_of_hashes

            area = required_area(table)
        except SevApiError as error:
            raise ConfigError(f"firmware {boot.firmware.path}: {error}") from None
        initrd = NO_IMAGE_HASH if boot.initrd is None else bytes.fromhex(boot.initrd.sha256)
        hashes = table_of_hashes(bytes.fromhex(boot.kernel.sha256), initrd, boot.cmdline or "")
        machine.add_launch_region(LaunchRegion("kernel hashes", area.base, hashes.to_bytes()))
        self._hashed = True

    @hookimpl
    def launch_start(self, request: LaunchRequest) -> SevContext:
        """LAUNCH_START: what the firmware would check of the policy, and the context of everything that follows."""
        if not request.regions:
            raise ConfigError("a SEV guest needs firmware to launch: give one with --bios")
        status = policy.check(self.object.policy, EMULATED_API)
        if status != Status.SUCCESS:
            raise LaunchRefused(
                f"LAUNCH_START: policy {int(self.object.policy):#x} is refused by firmware API {EMULATED_API}: "
                f"{fw_error_to_str(status)}",
                int(status),
            )
        keys = launch_keys(self._platform, self.object)
        api = EMULATED_API if self._platform is None else self._platform.firmware.api
        return SevContext(self.object.policy, api, HANDLE, keys, self.object.c_bit)

    @hookimpl
    def launch_update(self, machine: Machine, gpa: int, data: bytes) -> None:
        """LAUNCH_UPDATE_DATA: what lies there in the clear becomes private."""
        machine.memory.load(gpa, data, private=True)

    @hookimpl
    def finish(self, machine: Machine, launch: Launch) -> None:
        """LAUNCH_FINISH: say what the owner, who is not here, could not know or would not want."""
        if launch.measurement is None and isinstance(launch.context, SevContext):
            machine.warn("the guest starts without a launch measurement: the plug-in 'measurement' is off")
        fw_cfg = machine.private.get("fw_cfg")
        if self._hashed and isinstance(fw_cfg, FwCfg):
            self._changed = changed_images(fw_cfg, machine.config.boot)
        if self._changed:
            machine.warn(f"{self._changed_text()}: firmware that checks the hashes will not start it")

    @hookimpl
    def snapshot_save(self, machine: Machine) -> SavedState:
        """The launch.  Its keys only where they are still good for something, or where nobody can read them."""
        folder = machine.config.options.get("platform")
        options = {} if folder is None else {"platform": str(folder)}
        context = machine.launch.context
        if not isinstance(context, SevContext):
            return SavedState({"context": None}, options=options)
        kept = self.object.encrypt_memory or machine.launch.state is not LaunchState.RUNNING
        api = context.api
        data = {
            "policy": int(context.policy),
            "api": [api.major, api.minor, api.build],
            "handle": context.handle,
            "c_bit": context.c_bit,
            "keys": [context.keys.tek, context.keys.tik] if kept else None,
        }
        return SavedState({"context": data, "changed": self._changed}, kept, options)

    @hookimpl
    def snapshot_load(self, machine: Machine, state: Mapping[str, Any]) -> None:
        """The launch as it was; nothing is measured again."""
        saved = state["context"]
        if saved is None:
            return
        tek, tik = saved["keys"] or (sev_object.ZERO_KEY, sev_object.ZERO_KEY)
        keys = TransportKeys(tek=bytes(tek), tik=bytes(tik))
        api = ApiVersion(*map(int, saved["api"]))
        launched = policy.Policy(int(saved["policy"]))
        machine.launch.context = SevContext(launched, api, int(saved["handle"]), keys, int(saved["c_bit"]))
        self._changed = [str(name) for name in state["changed"]]

    @hookimpl
    def guest_exit(self, end: End) -> End | None:
        """Why a guest came to nothing, where SEV explains it."""
        if end.result == HALTED and not self._machine.counters.interrupts:
            return attrs.evolve(end, detail=f"{end.detail}, before its first interrupt: {_EARLY_HALT}")
        if end.orderly or not self._changed:
            return None
        return End(REFUSED, f"{self._changed_text()} ({end.detail})")

    def _changed_text(self) -> str:
        verb = "is" if len(self._changed) == 1 else "are"
        return f"the {' and the '.join(self._changed)} that fw_cfg offers {verb} not what was measured"

    @hookimpl
    def summary(self, machine: Machine, document: dict[str, Any]) -> None:
        """Key ``sev``: the launch in the words of QMP's query-sev."""
        launch = machine.launch
        if isinstance(launch.context, SevContext):
            document.setdefault("sev", {}).update(
                policy=int(launch.context.policy),
                state=launch.state.value,
                api_major=launch.context.api.major,
                api_minor=launch.context.api.minor,
                build_id=launch.context.api.build,
            )
            if self._hashed:
                document["sev"]["kernel_hashes"] = {
                    name.replace(" ", "_"): "differs" if name in self._changed else "as measured" for name in IMAGES
                }
