"""The plug-in: machine options, the command-line option, the APIC base register, and real firmware on the board."""

from __future__ import annotations

import click
import pytest

from sevplug.core.config import MachineConfig
from sevplug.core.errors import ConfigError, GuestFault
from sevplug.core.machine import Machine
from sevplug.core.plugins import PluginManager
from sevplug.core.result import End
from sevplug.plugins import pc_board


@pytest.fixture
def plugins():
    manager = PluginManager()
    manager.add(pc_board, "pc-board")
    manager.ready()
    return manager


def config(**options):
    return MachineConfig(memory=16 << 20, machine_options=options)


@pytest.mark.parametrize(
    "options", [{"type": "pc", "accel": "tcg"}, {"type": "pc-i440fx-7.2"}, {"hpet": "off", "smm": "off"}, {}]
)
def test_the_options_of_a_pc_are_taken(plugins, options):
    with Machine(config(**options), plugins) as machine:
        assert machine.bus.io_read(0x3FD, 1) == 0x60


@pytest.mark.parametrize(
    ("options", "named"), [({"type": "q35"}, "q35"), ({"accel": "kvm"}, "accel=kvm"), ({"usb": "on"}, "usb=on")]
)
def test_what_cannot_be_honoured_is_refused_by_name(plugins, options, named):
    with pytest.raises(ConfigError, match=named):
        Machine(config(**options), plugins)


def test_debugcon_and_disk_are_options_of_the_command_line(plugins, tmp_path):
    command = click.Command("run")
    plugins.hook.add_options(command=command)
    assert [option.name for option in command.params] == ["debugcon", "disk"]
    options = {"debugcon": f"file:{tmp_path / 'log'}"}
    with Machine(MachineConfig(memory=16 << 20, options=options), plugins) as machine:
        machine.bus.io_write(0x402, 1, ord("x"))
    assert (tmp_path / "log").read_bytes() == b"x"


def test_the_apic_base_register_is_readable_and_checks_what_is_written(plugins):
    with Machine(config(), plugins) as machine:
        assert machine.cpu.msr_read(0x1B) == 0xFEE00900
        machine.cpu.msr_write(0x1B, 0xFEE00100)
        assert machine.cpu.msr_read(0x1B) == 0xFEE00100
        with pytest.raises(GuestFault):
            machine.cpu.msr_write(0x1B, 0xFEE00D00)


def test_a_guest_that_switched_its_apic_off_before_it_halted_ended_in_order(plugins):
    spurious = 0xFEE000F0
    with Machine(config(), plugins) as machine:

        def end(name):
            better = plugins.hook.guest_exit(cpu=machine.cpu, end=End(name, "why"))
            return None if better is None else better.result

        assert end("halted") is None  # never enabled: a guest that gave up early
        machine.bus.mmio_write(spurious, 4, 0x1FF)
        assert end("halted") is None
        machine.bus.mmio_write(spurious, 4, 0xFF)
        assert end("halted") == "shutdown"
        assert end("timeout") is None
        machine.reset()
        assert end("halted") is None
