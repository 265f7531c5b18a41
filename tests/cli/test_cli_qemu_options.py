"""QEMU's command line, option by option."""

from __future__ import annotations

import shlex

import pytest

from sevplug.cli.qemu_options import QemuRequest, parse_qemu
from sevplug.core.config import ObjectSpec
from sevplug.core.errors import ConfigError

MIB = 1 << 20
AN_OPTION = "not supported, expected an option; a disk is -drive if=virtio,format=raw,file=FILE"
OBJECT = "-object sev-emulated,id=sev0,cbitpos=47,reduced-phys-bits=1,tik=tik.bin,tek=tek.bin"
SPEC = ObjectSpec(
    "sev-emulated", "sev0", {"cbitpos": "47", "reduced-phys-bits": "1", "tik": "tik.bin", "tek": "tek.bin"}
)


def request(line: str) -> QemuRequest:
    parsed, own = parse_qemu(shlex.split(line))
    assert own == []
    return parsed


def refusal(line: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_qemu(shlex.split(line))
    return str(caught.value)


def test_the_example_of_the_qemu_patches_is_taken_as_printed():
    line = f'-cpu "EPYC-Milan" -accel tcg {OBJECT} -machine memory-encryption=sev0'
    assert request(line) == QemuRequest(
        cpu="EPYC-Milan", objects=(SPEC,), machine={"memory-encryption": "sev0"}, serial="stdio"
    )


def test_the_modern_spelling_of_the_reference_means_the_same():
    assert request(f"{OBJECT} -M confidential-guest-support=sev0").confidential


def test_without_a_reference_the_guest_is_a_plain_one():
    assert not request("-bios OVMF.fd").confidential


def test_the_defaults_are_those_of_qemu():
    plain = request("")
    assert plain == QemuRequest(memory=128 * MIB, reboot=True, paused=False, serial="stdio")


@pytest.mark.parametrize(
    ("line", "field", "value"),
    [
        ("-cpu EPYC", "cpu", "EPYC"),
        ("--cpu EPYC", "cpu", "EPYC"),
        ("-cpu A -cpu B", "cpu", "B"),
        ("-accel tcg,thread=single", "cpu", None),
        ("-machine pc", "machine", {"type": "pc"}),
        ("-machine pc,accel=tcg,smm=off", "machine", {"type": "pc", "accel": "tcg", "smm": "off"}),
        ("-machine dump-guest-core=off,mem-merge=no", "machine", {}),
        ("-M foo=1 -machine foo=2,bar=x", "machine", {"foo": "2", "bar": "x"}),
        ("-bios a -bios b", "bios", "b"),
        ("-drive if=pflash,format=raw,unit=0,readonly=on,file=CODE.fd", "flash", ("CODE.fd",)),
        (
            "-drive if=pflash,format=raw,unit=1,file=VARS.fd -drive if=pflash,unit=0,file=CODE.fd,readonly=on",
            "flash",
            ("CODE.fd", "VARS.fd"),
        ),
        ("-drive if=pflash,file=C -drive if=pflash,file=V", "flash", ("C", "V")),
        ("-drive if=pflash,file=C -drive if=pflash,file=V", "flash_kept", True),
        ("-drive if=pflash,file=C -drive if=pflash,file=V,snapshot=on", "flash_kept", False),
        ("-drive if=pflash,file=C -drive if=pflash,file=V,readonly=on", "flash_kept", False),
        ("-drive if=pflash,file=C", "flash_kept", False),
        ("-drive if=pflash,file=a,,b", "flash", ("a,b",)),
        ("-m 256M", "memory", 256 * MIB),
        ("-m 256", "memory", 256 * MIB),
        ("-m size=1G", "memory", 1024 * MIB),
        ("-S -qmp unix:/q,server=on,wait=off", "paused", True),
        ("-qmp unix:/run/q,server=on,wait=off", "qmp", "unix:/run/q,server=on,wait=off"),
        ("-qmp tcp:127.0.0.1:4444,server,nowait", "qmp", "tcp:127.0.0.1:4444,server,nowait"),
        ("-gdb tcp::1234", "gdb", "tcp:127.0.0.1:1234,server=on,wait=off"),
        ("-gdb tcp:localhost:1,server,wait", "gdb", "tcp:localhost:1,server,wait,server=on,wait=off"),
        ("--gdb tcp:127.0.0.1:9", "gdb", "tcp:127.0.0.1:9,server=on,wait=off"),
        ("-gdb unix:/g,server=on,wait=off", "gdb", "unix:/g,server=on,wait=off"),
        ("-s", "gdb", "tcp:127.0.0.1:1234,server=on,wait=off"),
        ("-s -gdb none", "gdb", None),
        ("-s -S", "paused", True),
        ("-qmp unix:/q,server -S", "qmp", "unix:/q,server"),
        ("-qmp unix:/a=b,server=on,wait=off", "qmp", "unix:/a=b,server=on,wait=off"),
        ("-serial stdio", "serial", "stdio,signal=on"),
        ("-serial mon:stdio", "serial", "stdio"),
        ("-serial unix:s,server=on,wait=off", "serial", "unix:s,server=on,wait=off"),
        ("-serial tcp:127.0.0.1:0,server", "serial", "tcp:127.0.0.1:0,server"),
        ("-serial file:out.txt", "serial", "file:out.txt"),
        ("-serial null", "serial", "null"),
        ("-serial none", "serial", "null"),
        ("-display none", "serial", "null"),
        ("-nodefaults", "serial", "null"),
        ("-nographic", "serial", "stdio"),
        ("-nographic -display none", "serial", "stdio"),
        ("-nographic -monitor none", "serial", "stdio,signal=on"),
        ("-nographic -serial null", "serial", "null"),
        ("-kernel k", "kernel", "k"),
        ("-kernel k -initrd i", "initrd", "i"),
        ("-kernel k -append 'console=ttyS0 quiet'", "append", "console=ttyS0 quiet"),
        ("-no-reboot", "reboot", False),
        ("-smp 1", "memory", 128 * MIB),
        ("-smp cpus=1,sockets=1,cores=1,threads=1,maxcpus=1", "memory", 128 * MIB),
        ("-name vm1", "name", "vm1"),
        ("-name guest=vm1", "name", "vm1"),
        ("-no-user-config -monitor none -vga none -parallel none -net none -nic none", "qmp", None),
        ("-debugcon file:debug.log", "debugcon", "file:debug.log"),
        ("-debugcon stdio -global isa-debugcon.iobase=0x402", "debugcon", "stdio"),
    ],
)
def test_an_option_means_what_it_means_in_qemu(line: str, field: str, value: object):
    assert getattr(request(line), field) == value


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "-device virtio-net-pci",
            "-device virtio-net-pci: not supported; the only device that can be added is virtio-blk-pci",
        ),
        ("--device e1000", "-device e1000: not supported; the only device that can be added is virtio-blk-pci"),
        (
            "-global isa-debugcon.iobase=0xe9",
            "-global isa-debugcon.iobase=0xe9: not supported, expected isa-debugcon.iobase=0x402",
        ),
        ("-global x.y=1", "-global x.y=1: not supported; devices have no properties to set"),
        ("-enable-kvm", "-enable-kvm: not supported; the guest is emulated, expected -accel tcg"),
        ("-enable-kvm -S", "-enable-kvm: not supported; the guest is emulated, expected -accel tcg"),
        ("-daemonize", "-daemonize: not supported; sevplug qemu --help lists what is"),
        ("-netdev user,id=n", "-netdev user,id=n: not supported; sevplug qemu --help lists what is"),
        ("-accel kvm", "-accel kvm: not supported, expected -accel tcg (emulation)"),
        ("-accel tcg,thread=multi", "-accel tcg,thread=multi: one CPU runs on one thread, expected thread=single"),
        ("-accel tcg,foo=1", "-accel tcg,foo=1: 'foo' is not supported, expected accel, thread"),
        ("-machine mem-merge=on", "-machine mem-merge=on: not supported, expected mem-merge=off"),
        ("-machine mem-merge=x", "-machine: Parameter 'mem-merge' expects 'on' or 'off', found 'x'"),
        ("-machine pc,foo", "-machine pc,foo: Expected '=' after parameter 'foo'"),
        (
            "-cpu EPYC,+x2apic",
            "-cpu EPYC,+x2apic: CPU feature flags are not supported, expected -cpu EPYC",
        ),
        ("-cpu ,x", "-cpu ,x: expected the name of a CPU model"),
        ("-cpu", "-cpu: requires an argument"),
        ("-m 256M,slots=2", "-m 256M,slots=2: 'slots' is not supported, expected size"),
        ("-m 12x", "-m 12x: expected a size, such as 256M (suffixes b, k, M, G, T, P, E)"),
        ("-smp 2", "-smp 2: cpus=2 is not supported, expected one CPU"),
        ("-smp 1,cores=2", "-smp 1,cores=2: cores=2 is not supported, expected one CPU"),
        (
            "-drive if=ide,file=d",
            "-drive if=ide,file=d: not supported; expected if=virtio, if=none or, for flash, if=pflash",
        ),
        (
            "-drive file=d",
            "-drive file=d: not supported; expected if=virtio, if=none or, for flash, if=pflash",
        ),
        (
            "-drive if=pflash,format=qcow2,file=d",
            "-drive if=pflash,format=qcow2,file=d: format=qcow2 is not supported, expected format=raw",
        ),
        (
            "-drive if=pflash,unit=2,file=d",
            "-drive if=pflash,unit=2,file=d: unit=2 is not supported, expected 0 (code) or 1 (variables)",
        ),
        ("-drive if=pflash,unit=0", "-drive if=pflash,unit=0: Parameter 'file' is missing"),
        (
            "-drive if=pflash,unit=0,file=a -drive if=pflash,unit=0,file=b",
            "-drive if=pflash,unit=0,file=b: unit 0 is there twice",
        ),
        (
            "-drive if=pflash,unit=1,file=v",
            "-drive if=pflash: unit 0 is missing, expected the firmware's code there",
        ),
        ("-bios b -drive if=pflash,file=c", "-bios b: expected either -bios or -drive if=pflash"),
        ("-append x", "-append only allowed with -kernel option"),
        ("-initrd x", "-initrd only allowed with -kernel option"),
        (
            "-serial mon:vc",
            "-serial mon:vc: not supported, expected stdio, null, file:PATH, unix:PATH or tcp:127.0.0.1:PORT",
        ),
        (
            "-serial unix:s",
            "-serial unix:s: connecting as a client is not supported, expected server=on,wait=off",
        ),
        ("-serial null -serial null", "-serial null: not supported; the board has one serial port"),
        ("-display gtk", "-display gtk: not supported, expected -display none"),
        ("-vga std", "-vga std: not supported, expected -vga none"),
        ("-monitor stdio", "-monitor stdio: not supported, expected -monitor none"),
        ("-name vm,process=p", "-name vm,process=p: 'process' is not supported, expected guest"),
        (
            "-qmp unix:/q",
            "-qmp unix:/q: connecting as a client is not supported, expected server=on,wait=off",
        ),
        (
            "-gdb unix:/g",
            "-gdb unix:/g: connecting as a client is not supported, expected server=on,wait=off",
        ),
        (
            "-qmp stdio",
            "-qmp stdio: connecting as a client is not supported, expected server=on,wait=off",
        ),
        ("disk.img", f"disk.img: {AN_OPTION}"),
        ("-S disk.img", f"disk.img: {AN_OPTION}"),
        ("-", f"-: {AN_OPTION}"),
        (f"{OBJECT} {OBJECT}", "-object sev-emulated: Duplicate ID 'sev0' for object"),
        (
            OBJECT,
            "-object sev-emulated,id=sev0: nothing refers to this object, expected -machine memory-encryption=sev0",
        ),
        (f"{OBJECT} -machine memory-encryption=sev9", "No such memory encryption object 'sev9'"),
        (f"{OBJECT} -machine confidential-guest-support=sev9", "Device 'sev9' not found"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(line: str, expected: str):
    assert refusal(line) == expected


def test_our_own_options_are_left_for_us():
    _request, own = parse_qemu(
        shlex.split("-S -P no:measurement --timeout 3 -qmp unix:/q,server=on --summary=s.json --log-level debug -m 64")
    )
    assert own == ["-P", "no:measurement", "--timeout", "3", "--summary=s.json", "--log-level", "debug"]


@pytest.mark.parametrize("word", ["-h", "-help", "--help"])
def test_each_spelling_of_help_is_ours(word: str):
    assert parse_qemu([word])[1] == ["--help"]
