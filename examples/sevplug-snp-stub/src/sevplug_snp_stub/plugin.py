"""The plug-in ``snp-stub``: what a guest sees of SNP, and the digest over its launch.

Switch it on in place of ``sev``: ``-P snp-stub -P no:sev``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import attrs

from sevplug import Machine, hookimpl
from sevplug.core.cpumodel import find_model
from sevplug.core.errors import ConfigError, GuestFault
from sevplug.core.launch import Launch, LaunchMeasurement, LaunchRequest
from sevplug.core.snapshot import SavedState
from sevplug.core.vcpu import PRIVATE, Access, CpuidRegisters
from sevplug.sevapi.errors import SevApiError
from sevplug_snp_stub import digest, hookspecs
from sevplug_snp_stub.features import DEFAULT, features_option, parse_features
from sevplug_snp_stub.pages import metadata_regions, vmsa_region

if TYPE_CHECKING:
    import click
    import pluggy

# APM 3, E.4.17: SEV, SEV-ES and SEV-SNP; the C-bit's position and the address bits it costs.
CPUID_LEAF, CPUID_FEATURES = 0x8000001F, 1 << 1 | 1 << 3 | 1 << 4
C_BIT, REDUCED_BITS = 51, 1
# APM 2, section 15.34.10: SEV_Enabled, SEV_ES_Enabled and SNP_Active.
MSR_SEV_STATUS, STATUS = 0xC0010131, 0b111
# QEMU's default for sev-snp-guest: SMT allowed, and the bit that has to be one.
POLICY = 0x30000
_GENERAL_PROTECTION = 13


@attrs.define
class SnpContext:
    """One launch: the guest policy, and the digest over the pages so far."""

    policy: int = POLICY
    digest: bytes = digest.ZEROS


class SnpStubPlugin:
    """The hooks; each machine gets an instance of its own."""

    @hookimpl
    def add_hookspecs(self, manager: pluggy.PluginManager) -> None:
        """The hook ``snp_page``."""
        manager.add_hookspecs(hookspecs)

    @hookimpl
    def add_options(self, command: click.Command) -> None:
        """``--snp-features``."""
        command.params.append(features_option())

    @hookimpl
    def add_commands(self, cli: click.Group) -> None:
        """``snp-measure``."""
        from sevplug_snp_stub.command import command

        cli.add_command(command())

    @hookimpl
    def machine_init(self, machine: Machine) -> None:
        """Read the option, and refuse what cannot be an SNP guest."""
        if machine.plugins.has_plugin("sev"):
            raise ConfigError("plug-ins snp-stub and sev: a guest is one or the other, expected -P no:sev too")
        if machine.config.boot.direct:
            raise ConfigError("--kernel: an SNP launch needs firmware, expected --bios too")
        self._features = parse_features(str(machine.config.options.get("snp_features", DEFAULT)))

    # -- what the guest sees ---------------------------------------------------------------------------------------

    @hookimpl
    def cpuid(self, leaf: int) -> CpuidRegisters | None:
        """Leaf 0x8000001F; a real SNP guest would get a #VC here and look into its CPUID page."""
        return CpuidRegisters(CPUID_FEATURES, C_BIT | REDUCED_BITS << 6, 0, 0) if leaf == CPUID_LEAF else None

    @hookimpl
    def rdmsr(self, index: int) -> int | None:
        """SEV_STATUS says that SNP is active."""
        return STATUS if index == MSR_SEV_STATUS else None

    @hookimpl
    def wrmsr(self, index: int) -> bool | None:
        """SEV_STATUS is read-only."""
        if index == MSR_SEV_STATUS:
            raise GuestFault(_GENERAL_PROTECTION, 0)
        return None

    @hookimpl
    def translate(self, address: int, access: int) -> int:
        """Strip the C-bit; tables and instructions are private whatever it says."""
        if address & 1 << C_BIT or access & (Access.TABLE | Access.FETCH):
            return address & ~(1 << C_BIT) | PRIVATE
        return address

    @hookimpl
    def address_rule(self) -> int:
        """The same as data, which costs nothing."""
        return 1 << C_BIT

    # -- the launch ------------------------------------------------------------------------------------------------

    @hookimpl
    def add_launch_regions(self, machine: Machine) -> None:
        """What the firmware's metadata asks for, with page types of SNP."""
        boot = machine.config.boot
        try:
            regions = metadata_regions(boot)
        except SevApiError as error:
            assert boot.firmware is not None
            raise ConfigError(f"firmware {boot.firmware.path}: {error}") from None
        for region in regions:
            machine.add_launch_region(region)

    @hookimpl
    def launch_start(self, request: LaunchRequest) -> SnpContext:
        """SNP_LAUNCH_START."""
        if not request.regions:
            raise ConfigError("an SNP launch needs firmware: give one with --bios")
        return SnpContext()

    @hookimpl
    def launch_update(self, machine: Machine, launch: Launch, gpa: int, data: bytes, page_type: str | int) -> None:
        """SNP_LAUNCH_UPDATE: the chain grows by a link a page."""
        context = launch.context
        assert isinstance(context, SnpContext)
        kind = digest.page_type_of(page_type)
        for page, after in digest.pages(gpa, data, kind, context.digest):
            context.digest = after
            machine.plugins.hook.snp_page(machine=machine, gpa=page, page_type=int(kind), digest=after)

    @hookimpl
    def launch_measure(self, machine: Machine, launch: Launch) -> LaunchMeasurement:
        """The digest with the VMSA in it; what authenticates it is a report, which a stub has not."""
        vmsa = vmsa_region(find_model(machine.config.cpu).signature, self._features)
        self.launch_update(machine, launch, vmsa.gpa, vmsa.data, vmsa.page_type)
        assert isinstance(launch.context, SnpContext)
        return LaunchMeasurement(launch.context.digest, b"")

    @hookimpl
    def finish(self, machine: Machine) -> None:
        """SNP_LAUNCH_FINISH."""
        machine.warn("snp-stub is a stub: no RMP, no VMGEXIT, no security; software for SNP will not get far")

    @hookimpl
    def snapshot_save(self, machine: Machine) -> SavedState:
        """The launch, and the option that a machine needs to be built again."""
        options = {"snp_features": str(machine.config.options.get("snp_features", DEFAULT))}
        context = machine.launch.context
        return SavedState(attrs.asdict(context) if isinstance(context, SnpContext) else {}, options=options)

    @hookimpl
    def snapshot_load(self, machine: Machine, state: Mapping[str, Any]) -> None:
        """The launch as it was; nothing is measured again."""
        if state:
            machine.launch.context = SnpContext(int(state["policy"]), bytes(state["digest"]))

    @hookimpl
    def summary(self, machine: Machine, document: dict[str, Any]) -> None:
        """The key ``snp``: the policy, and the launch digest in hex."""
        context = machine.launch.context
        if isinstance(context, SnpContext):
            document["snp"] = {"policy": context.policy, "launch_digest": context.digest.hex()}
