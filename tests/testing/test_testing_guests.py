"""The fixtures that make guests, as a user's test has them."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import echoing
import pytest
from assembler import assemble
from kernels import bzimage
from sev_guests import firmware_with_hash_area

from sevplug.boot import embedded
from sevplug.core.config import MachineConfig
from sevplug.core.errors import ConfigError, LaunchRefused, SevplugError
from sevplug.core.hookspecs import hookimpl
from sevplug.core.machine import Machine
from sevplug.owner.qmp import QmpClient
from sevplug.plugins.sev_platform import platform_of
from sevplug.testing import (
    ConsoleError,
    EmbeddedGuest,
    MachineFactory,
    Owner,
    PausedMachineFactory,
    Platform,
)

MIB = 1 << 20


class Watcher:
    """A plug-in of a test's own."""

    def __init__(self) -> None:
        self.events: list[str] = []

    @hookimpl
    def notify(self, event: str) -> None:
        self.events.append(event)


def test_without_a_word_the_embedded_guest_runs_under_sev_with_the_owners_keys(
    sevplug_machine: MachineFactory, sevplug_owner: Owner
) -> None:
    guest = sevplug_machine()
    measurement = sevplug_owner.verify(guest)
    assert guest.machine.launch.measurement is not None
    assert measurement.blob == guest.machine.launch.measurement.blob
    guest.expect(r"SEV is active\r\n")
    run = guest.wait()
    assert (run.result, guest.result) == ("shutdown", run)
    assert guest.output.endswith(b"done\r\n")
    assert guest.wait() is run  # it has ended: nothing runs


def test_a_guest_is_talked_to_and_runs_only_while_it_is_waited_for(sevplug_machine: MachineFactory) -> None:
    guest = sevplug_machine(firmware=echoing.polling(), memory=16 * MIB, sev=None)
    guest.expect("ok> ")
    now = guest.machine.clock.now
    guest.send("hello\r")
    assert guest.machine.clock.now == now
    assert guest.expect(rb"([A-Z]+)\r\n")[1] == b"HELLO"
    guest.send("q")
    assert guest.wait().result == "reset"


def test_two_guests_of_one_test_know_nothing_of_each_other(sevplug_machine: MachineFactory) -> None:
    first, second = (sevplug_machine(firmware=echoing.polling(), memory=16 * MIB) for _ in "ab")
    first.expect("ok> ")
    second.expect("ok> ")
    first.send("a")
    second.send("b")
    first.expect("A")
    second.expect("B")


def test_settings_reach_the_machine(sevplug_machine: MachineFactory, tmp_path: Path) -> None:
    (tmp_path / "firmware.fd").write_bytes(echoing.polling())
    guest = sevplug_machine(
        firmware=tmp_path / "firmware.fd",
        memory=8 * MIB,
        sev={"cbitpos": "47", "policy": "0x0"},
        seed=7,
        options={"c_bit_checker": "stop"},
    )
    config = guest.machine.config
    assert (config.memory, config.seed, config.options) == (8 * MIB, 7, {"c_bit_checker": "stop"})
    properties = config.objects[0].properties
    assert (properties["cbitpos"], properties["policy"]) == ("47", "0x0")


def test_a_kernel_is_measured_where_the_firmware_has_room_for_its_hashes(
    sevplug_machine: MachineFactory, sevplug_owner: Owner
) -> None:
    firmware = firmware_with_hash_area()
    guest = sevplug_machine(firmware=firmware, kernel=bzimage(), initrd=b"initrd", cmdline="quiet", memory=16 * MIB)
    assert guest.machine.config.objects[0].properties["kernel-hashes"] == "on"
    sevplug_owner.verify(guest)
    assert [region.name for region in guest.machine.launch.regions] == ["firmware", "kernel hashes"]


def test_a_configuration_can_say_all_of_it(sevplug_machine: MachineFactory) -> None:
    config = MachineConfig(boot=embedded.load(), memory=32 * MIB)
    assert sevplug_machine(config).machine.config is config
    with pytest.raises(TypeError, match="memory: a MachineConfig says all of it, expected one of the two"):
        sevplug_machine(config, memory=MIB)


def test_plug_ins_are_named_as_on_the_command_line_or_are_the_tests_own(sevplug_machine: MachineFactory) -> None:
    watcher = Watcher()
    guest = sevplug_machine(plugins=["no:measurement", "no:logging", watcher])
    names = guest.machine.plugins.names
    assert "Watcher" in names
    assert not {"measurement", "logging"} & set(names)
    guest.wait()
    assert watcher.events[-1] == "run.end"


def test_a_guest_without_a_serial_port_runs_to_its_end_unheard(
    sevplug_machine: MachineFactory, sevplug_paused_machine: PausedMachineFactory
) -> None:
    spinning = assemble("jmp _start")
    for guest in (
        sevplug_machine(firmware=spinning, memory=MIB, plugins=["no:pc-board"]),
        sevplug_paused_machine(firmware=spinning, memory=MIB, plugins=["no:pc-board"]),
    ):
        assert guest.output == b""
        with pytest.raises(ConfigError, match="no serial port"):
            guest.expect("anything")
        with pytest.raises(ConsoleError, match=r"did not end within 0\.1 s"):
            guest.wait(0.1)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"firmware": "/nowhere/firmware.fd"}, "firmware /nowhere/firmware.fd: No such file or directory"),
        ({"initrd": b"initrd"}, "initrd, cmdline: they are a kernel's, expected kernel too"),
        ({"variables": b"variables"}, "variables: they are a firmware's, expected firmware too"),
        ({"sev": {"policy": "many"}}, "object sev-emulated (id=sev0): policy=many: expected a number from"),
        ({"sev": {"colour": "blue"}}, "Property 'sev-emulated.colour' not found"),
        ({"plugins": ["mine"]}, "-P mine: no such plug-in is installed"),
    ],
)
def test_what_no_guest_can_be_made_of_is_refused(
    sevplug_machine: MachineFactory, settings: dict[str, object], text: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        sevplug_machine(**settings)  # type: ignore[arg-type]
    assert str(refused.value).startswith(text)


def test_a_setting_that_there_is_not_is_refused_with_those_there_are(sevplug_machine: MachineFactory) -> None:
    with pytest.raises(TypeError, match="bios: no such setting of a guest, expected one of firmware, variables, "):
        sevplug_machine(bios="OVMF.fd")  # type: ignore[call-arg]


# -- paused ----------------------------------------------------------------------------------------------------------


def test_a_paused_guest_is_driven_over_its_socket(
    sevplug_paused_machine: PausedMachineFactory, sevplug_owner: Owner, tmp_path: Path
) -> None:
    guest = sevplug_paused_machine()
    assert guest.qmp.is_relative_to(tmp_path)
    with QmpClient(guest.qmp_address) as client:
        launch = client.launch()
        assert (launch.state, guest.output, guest.result) == ("launch-secret", b"", None)
        client.inject(sevplug_owner.seal({"luks-key": "through the socket"}, launch.measurement))
        client.execute("cont")
    guest.expect("through the socket")
    assert guest.wait().result == "shutdown"
    assert guest.summary["sev"]["state"] == "running"


def test_the_server_hangs_up_when_the_guest_has_ended(sevplug_paused_machine: PausedMachineFactory) -> None:
    guest = sevplug_paused_machine()
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(str(guest.qmp))
        client.sendall(b'{"execute": "qmp_capabilities"} {"execute": "cont"}')
        with client.makefile() as lines:
            told = lines.read()  # to the end of the file
    assert '"event": "SHUTDOWN"' in told
    assert guest.wait().orderly
    assert not guest.qmp.exists()
    with pytest.raises(SevplugError, match=r"^the guest has ended$"):
        guest.call(lambda machine: machine.status)


def test_a_paused_guest_is_talked_to_in_halves_of_lines_too(sevplug_paused_machine: PausedMachineFactory) -> None:
    guest = sevplug_paused_machine(firmware=echoing.sleeping(), memory=16 * MIB)
    guest.resume()
    guest.expect("ok> $", timeout=10)
    guest.send("hello\r")
    assert guest.expect(rb"([A-Z]+)\r\n> $")[1] == b"HELLO"
    guest.send("q")
    assert guest.wait().result == "reset"


def test_the_machine_is_asked_on_its_own_thread(sevplug_paused_machine: PausedMachineFactory) -> None:
    guest = sevplug_paused_machine()
    assert guest.call(lambda _machine: threading.current_thread().name) == "sevplug-machine"
    assert guest.call(lambda machine: machine.status) == "prelaunch"

    def fails(_machine: Machine) -> None:
        raise TimeoutError("of the test's own")

    with pytest.raises(TimeoutError, match="of the test's own"):
        guest.call(fails)


def test_two_paused_guests_have_a_socket_each(sevplug_paused_machine: PausedMachineFactory) -> None:
    first, second = sevplug_paused_machine(), sevplug_paused_machine()
    for guest in (first, second):
        with QmpClient(guest.qmp_address) as client:
            client.execute("cont")
    assert first.wait().result == second.wait().result == "shutdown"


def test_a_launch_that_is_refused_is_told_where_the_guest_is_made(
    sevplug_paused_machine: PausedMachineFactory,
) -> None:
    with pytest.raises(LaunchRefused, match="LAUNCH_START: policy 0x1800001 is refused"):
        sevplug_paused_machine(sev={"policy": "0x1800001"})  # firmware API 24.1 at least


# -- owner, platform, embedded guest ---------------------------------------------------------------------------------


def test_the_owner_seals_what_this_guest_alone_can_read(
    sevplug_machine: MachineFactory, sevplug_owner: Owner, sevplug_embedded_guest: EmbeddedGuest
) -> None:
    guest = sevplug_machine()
    sevplug_owner.inject(guest, {sevplug_embedded_guest.secret_guid: b"by its GUID"})
    guest.expect(f"secret {sevplug_embedded_guest.secret_guid}: by its GUID")


def test_the_owner_refuses_another_image(sevplug_machine: MachineFactory, sevplug_owner: Owner) -> None:
    guest = sevplug_machine()
    sevplug_owner.keys = Owner(sevplug_owner.tik_file.parent).keys
    with pytest.raises(ValueError, match=r"^launch measurement: does not match; expected policy 0x1"):
        sevplug_owner.verify(guest)


def test_a_plain_guest_has_no_measurement_to_verify(sevplug_machine: MachineFactory, sevplug_owner: Owner) -> None:
    with pytest.raises(ValueError, match=r"^launch measurement: this guest has none; the plug-in sev or measurement"):
        sevplug_owner.verify(sevplug_machine(sev=None))


def test_the_keys_are_files_that_nobody_else_reads(sevplug_owner: Owner) -> None:
    for path, key in (
        (sevplug_owner.tik_file, sevplug_owner.keys.tik),
        (sevplug_owner.tek_file, sevplug_owner.keys.tek),
    ):
        assert path.read_bytes() == key
        assert path.stat().st_mode & 0o777 == 0o600
    assert len({sevplug_owner.keys.tik, sevplug_owner.keys.tek, bytes(16)}) == 3


def test_a_guest_on_a_platform_gets_the_keys_in_a_session(
    sevplug_paused_machine: PausedMachineFactory, sevplug_owner: Owner, sevplug_platform: Platform
) -> None:
    guest = sevplug_paused_machine(platform=sevplug_platform, sev={"policy": "0x3"})
    spec = guest.call(lambda machine: machine.config.objects[0])
    assert spec.type == "sev-guest"
    assert not {"tik", "tek"} & set(spec.properties)
    sevplug_owner.inject(guest, {"luks-key": "in a session"})
    assert guest.call(lambda machine: platform_of(machine) is not None)
    guest.resume()
    guest.expect("in a session")


def test_the_platforms_chain_holds_up_to_its_root(sevplug_platform: Platform) -> None:
    from sevplug.sevapi.chain import check_amd_chain, check_chain

    check_amd_chain(sevplug_platform.root)
    check_chain(sevplug_platform.chain, sevplug_platform.root)
    assert sevplug_platform.full_chain.read_bytes().startswith(sevplug_platform.pdh.to_bytes())
    assert sevplug_platform.record.seeded


def test_the_embedded_guest_is_a_file_and_images(sevplug_embedded_guest: EmbeddedGuest) -> None:
    assert sevplug_embedded_guest.boot == embedded.load()
    assert sevplug_embedded_guest.path.read_bytes() == sevplug_embedded_guest.data
    assert len(sevplug_embedded_guest.data) == 4096


def test_a_folder_too_deep_for_a_sockets_address_has_its_sockets_elsewhere(
    tmp_path: Path, sevplug_owner: Owner
) -> None:
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    with PausedMachineFactory(deep, sevplug_owner, lambda _heading, _text: None) as factory:
        guest = factory()
        with QmpClient(guest.qmp_address) as client:
            assert client.launch().state == "launch-secret"
        folder = guest.qmp.parent
    assert not folder.exists()
