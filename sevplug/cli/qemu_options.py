"""QEMU's command line as a table: what each option means to sevplug, and a clear no to the rest.

What cannot be honoured is refused by name; nothing is ignored.  Source: QEMU's ``qemu-options.hx`` and ``system/vl.c``
(spelling, merging of repeated options, defaults).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

import attrs

from sevplug.board.chardev.ends import STDIO_SIGNALS
from sevplug.cli.options import (
    MIB,
    REFERENCES,
    check_references,
    key_values,
    parse_bool,
    parse_memory,
    parse_object,
    parse_output,
    parse_serial,
    split_list,
    take_only,
)
from sevplug.cli.qemu_disks import QemuDisk, QemuDisks
from sevplug.core.config import ObjectSpec
from sevplug.core.errors import ConfigError

MEMORY_DEFAULT = 128 * MIB
SEE_HELP = "not supported; sevplug qemu --help lists what is"

# Options whose only honest value asks for nothing.
_ONLY_NONE = {"display": "none", "vga": "none", "monitor": "none", "parallel": "none", "net": "none", "nic": "none"}
# What QEMU does with the guest's memory on the host; off is what sevplug does.
_HOST_FEATURES = ("dump-guest-core", "mem-merge")
_OVMF_DEBUG_PORT = 0x402
# What -s stands for.
_GDB_DEFAULT = "tcp::1234"


@attrs.frozen
class QemuRequest:
    """What a QEMU command line asked for, in sevplug's terms.

    ``memory`` is in bytes, files are named as written, None is what was not said.
    """

    cpu: str | None = None
    memory: int = MEMORY_DEFAULT
    objects: tuple[ObjectSpec, ...] = ()
    machine: Mapping[str, str] = attrs.field(factory=dict)
    bios: str | None = None
    flash: tuple[str, ...] = ()
    flash_kept: bool = False
    """True when the variable store was asked to keep what the guest writes."""
    disks: tuple[QemuDisk, ...] = ()
    kernel: str | None = None
    initrd: str | None = None
    append: str | None = None
    serial: str = "stdio"
    paused: bool = False
    reboot: bool = True
    qmp: str | None = None
    gdb: str | None = None
    debugcon: str | None = None
    name: str | None = None

    @property
    def confidential(self) -> bool:
        """Whether the machine refers to an object that makes its guest a confidential one."""
        return any(name in self.machine for name in REFERENCES)


@attrs.define
class _Flash:
    file: str
    read_only: bool
    snapshot: bool


@attrs.define
class _Builder:
    """The options met so far."""

    values: dict[str, str] = attrs.field(factory=dict)
    flags: set[str] = attrs.field(factory=set)
    objects: list[ObjectSpec] = attrs.field(factory=list)
    machine: dict[str, str] = attrs.field(factory=dict)
    flash: dict[int, _Flash] = attrs.field(factory=dict)
    disks: QemuDisks = attrs.field(factory=QemuDisks)
    serial: str | None = None
    memory: int = MEMORY_DEFAULT

    def request(self) -> QemuRequest:
        """The whole, after the checks that need more than one option."""
        check_references("-object", "-machine", self.objects, self.machine)
        if self.flash and 0 not in self.flash:
            raise ConfigError("-drive if=pflash: unit 0 is missing, expected the firmware's code there")
        if self.flash and "bios" in self.values:
            raise ConfigError(f"-bios {self.values['bios']}: expected either -bios or -drive if=pflash")
        for needs_kernel in ("append", "initrd"):
            if needs_kernel in self.values and "kernel" not in self.values:
                raise ConfigError(f"-{needs_kernel} only allowed with -kernel option")
        variables = self.flash.get(1)
        return QemuRequest(
            cpu=self.values.get("cpu"),
            memory=self.memory,
            objects=tuple(self.objects),
            machine=self.machine,
            bios=self.values.get("bios"),
            flash=tuple(self.flash[unit].file for unit in sorted(self.flash)),
            flash_kept=variables is not None and not (variables.read_only or variables.snapshot),
            disks=self.disks.disks(),
            kernel=self.values.get("kernel"),
            initrd=self.values.get("initrd"),
            append=self.values.get("append"),
            serial=self._serial(),
            paused="S" in self.flags,
            reboot="no-reboot" not in self.flags,
            qmp=self.values.get("qmp"),
            gdb=self.values.get("gdb"),
            debugcon=self.values.get("debugcon"),
            name=self.values.get("name"),
        )

    def _serial(self) -> str:
        if self.serial is not None:
            return self.serial
        if "nographic" in self.flags:
            # With the monitor away nothing switches between the two, and QEMU's port is a plain stdio.
            return STDIO_SIGNALS if "monitor" in self.values else "stdio"
        # QEMU puts the port into its window.  There is no window here: stdio is the nearest, unless the user said that
        # none is wanted.
        return "null" if "display" in self.values or "nodefaults" in self.flags else "stdio"


Handler = Callable[[_Builder, str, str], None]


def _keep(name: str) -> Handler:
    def keep(builder: _Builder, _option: str, value: str) -> None:
        builder.values[name] = value

    return keep


def _cpu(builder: _Builder, option: str, value: str) -> None:
    model, comma, features = value.partition(",")
    if not model:
        raise ConfigError(f"{option} {value}: expected the name of a CPU model")
    if comma and features:
        raise ConfigError(f"{option} {value}: CPU feature flags are not supported, expected {option} {model}")
    builder.values["cpu"] = model


def _accel(builder: _Builder, option: str, value: str) -> None:
    fields = key_values(option, value, "accel")
    take_only(option, value, fields, ("accel", "thread"))
    if fields.get("accel") != "tcg":
        raise ConfigError(f"{option} {value}: not supported, expected {option} tcg (emulation)")
    if fields.get("thread", "single") != "single":
        raise ConfigError(f"{option} {value}: one CPU runs on one thread, expected thread=single")


def _object(builder: _Builder, option: str, value: str) -> None:
    spec = parse_object(option, value)
    if any(other.id == spec.id for other in builder.objects):
        raise ConfigError(f"{option} {spec.type}: Duplicate ID '{spec.id}' for object")
    builder.objects.append(spec)


def _machine(builder: _Builder, option: str, value: str) -> None:
    for key, text in key_values(option, value, "type").items():
        if key not in _HOST_FEATURES:
            # The board, or another plug-in, knows it; what no plug-in takes is refused by the machine.
            builder.machine[key] = text
        elif parse_bool(option, key, text):
            raise ConfigError(f"{option} {key}={text}: not supported, expected {key}=off")


def _memory(builder: _Builder, option: str, value: str) -> None:
    fields = key_values(option, value, "size")
    take_only(option, value, fields, ("size",))
    builder.memory = parse_memory(option, fields.get("size", ""))


def _drive(builder: _Builder, option: str, value: str) -> None:
    fields = key_values(option, value)
    if fields.get("if") in ("virtio", "none"):
        builder.disks.add_drive(option, value, fields)
        return
    if fields.get("if") != "pflash":
        raise ConfigError(f"{option} {value}: not supported; expected if=virtio, if=none or, for flash, if=pflash")
    take_only(option, value, fields, ("if", "format", "unit", "index", "readonly", "snapshot", "file"))
    if fields.get("format", "raw") != "raw":
        raise ConfigError(f"{option} {value}: format={fields['format']} is not supported, expected format=raw")
    unit = fields.get("unit", fields.get("index", str(len(builder.flash))))
    if unit not in ("0", "1"):
        raise ConfigError(f"{option} {value}: unit={unit} is not supported, expected 0 (code) or 1 (variables)")
    if not fields.get("file"):
        raise ConfigError(f"{option} {value}: Parameter 'file' is missing")
    if int(unit) in builder.flash:
        raise ConfigError(f"{option} {value}: unit {unit} is there twice")
    builder.flash[int(unit)] = _Flash(
        fields["file"],
        parse_bool(option, "readonly", fields.get("readonly", "off")),
        parse_bool(option, "snapshot", fields.get("snapshot", "off")),
    )


def _device(builder: _Builder, option: str, value: str) -> None:
    builder.disks.add_device(option, value)


def _serial(builder: _Builder, option: str, value: str) -> None:
    if builder.serial is not None:
        raise ConfigError(f"{option} {value}: not supported; the board has one serial port")
    if value.startswith(("unix:", "tcp:")):
        _only_server(option, value)
    # Keys are the guest's where QEMU's would switch between guest and monitor; a plain stdio leaves Ctrl-C a signal.
    spelling = {"mon:stdio": "stdio", "stdio": STDIO_SIGNALS}.get(value, value)
    builder.serial = parse_serial(option, spelling)


def _qmp(builder: _Builder, option: str, value: str) -> None:
    _only_server(option, value)
    builder.values["qmp"] = value


def _gdb(builder: _Builder, option: str, value: str) -> None:
    """As QEMU's ``gdbserver_start``: ``tcp:`` always is a server that waits for nobody."""
    if value == "none":
        builder.values.pop("gdb", None)
        return
    if not value.startswith(("tcp:", "unix:")):
        raise ConfigError(f"{option} {value}: not supported, expected tcp::PORT, unix:PATH,server=on,wait=off or none")
    if value.startswith("tcp:"):
        # With no host QEMU listens everywhere; a debugger on another machine is not served here.
        value = re.sub(r"^tcp::(?=[0-9])", "tcp:127.0.0.1:", value) + ",server=on,wait=off"
    else:
        _only_server(option, value)
    builder.values["gdb"] = value


def _only_server(option: str, value: str) -> None:
    """Whoever opens the socket reads the rest; only what sevplug's own spelling takes for granted is checked here."""
    settings = {field.key: field.value or "on" for field in split_list(value)[1:]}
    if not parse_bool(option, "server", settings.get("server", "off")):
        raise ConfigError(f"{option} {value}: connecting as a client is not supported, expected server=on,wait=off")


def _debugcon(builder: _Builder, option: str, value: str) -> None:
    builder.values["debugcon"] = parse_output(option, value)


def _global(_builder: _Builder, option: str, value: str) -> None:
    name, _equals, text = value.partition("=")
    # The port that OVMF writes to, and where the board's debug console always is.
    if name != "isa-debugcon.iobase":
        raise ConfigError(f"{option} {value}: not supported; devices have no properties to set")
    if text not in (f"{_OVMF_DEBUG_PORT:#x}", str(_OVMF_DEBUG_PORT)):
        raise ConfigError(f"{option} {value}: not supported, expected {name}={_OVMF_DEBUG_PORT:#x}")


def _smp(builder: _Builder, option: str, value: str) -> None:
    fields = key_values(option, value, "cpus")
    take_only(option, value, fields, ("cpus", "maxcpus", "sockets", "dies", "clusters", "cores", "threads"))
    for key, text in fields.items():
        if text != "1":
            raise ConfigError(f"{option} {value}: {key}={text} is not supported, expected one CPU")


def _name(builder: _Builder, option: str, value: str) -> None:
    fields = key_values(option, value, "guest")
    take_only(option, value, fields, ("guest",))
    builder.values["name"] = fields.get("guest", "")


def _only_none(builder: _Builder, option: str, value: str) -> None:
    name = option.lstrip("-")
    if value != _ONLY_NONE[name]:
        raise ConfigError(f"{option} {value}: not supported, expected {option} {_ONLY_NONE[name]}")
    builder.values[name] = value


# name -> what to do with its value
_WITH_VALUE: dict[str, Handler] = {
    "cpu": _cpu,
    "accel": _accel,
    "object": _object,
    "machine": _machine,
    "M": _machine,
    "m": _memory,
    "bios": _keep("bios"),
    "drive": _drive,
    "device": _device,
    "kernel": _keep("kernel"),
    "initrd": _keep("initrd"),
    "append": _keep("append"),
    "serial": _serial,
    "qmp": _qmp,
    "gdb": _gdb,
    "debugcon": _debugcon,
    "global": _global,
    "smp": _smp,
    "name": _name,
    **dict.fromkeys(_ONLY_NONE, _only_none),
}
_FLAGS = frozenset({"S", "nographic", "nodefaults", "no-user-config", "no-reboot"})
_HELP = frozenset({"h", "help"})
_REASONS = {
    "enable-kvm": "not supported; the guest is emulated, expected -accel tcg",
}


def parse_qemu(arguments: Sequence[str]) -> tuple[QemuRequest, list[str]]:
    """QEMU's options out of ``arguments``, and what is left: sevplug's own long options and ``-P``, in order.

    QEMU takes one dash or two.  A long option with two dashes that QEMU does not know is taken for one of ours, and so
    are the words behind it up to the next option.  `ConfigError` names what cannot be honoured.
    """
    builder = _Builder()
    own: list[str] = []
    words = list(arguments)
    position = 0
    while position < len(words):
        word = words[position]
        position += 1
        name = word[2:] if word.startswith("--") else word[1:]
        following = words[position] if position < len(words) else None
        if not word.startswith("-") or word in ("-", "--"):
            raise ConfigError(
                f"{word}: not supported, expected an option; a disk is -drive if=virtio,format=raw,file=FILE"
            )
        if name in _WITH_VALUE:
            if following is None:
                raise ConfigError(f"{word}: requires an argument")
            _WITH_VALUE[name](builder, f"-{name}", following)
            position += 1
        elif name == "s":
            _gdb(builder, "-s", _GDB_DEFAULT)
        elif name in _FLAGS:
            builder.flags.add(name)
        elif name in _HELP:
            own.append("--help")
        elif name in _REASONS or not (word.startswith("--") or word == "-P"):
            value = "" if following is None or following.startswith("-") else f" {following}"
            raise ConfigError(f"{word}{value}: {_REASONS.get(name, SEE_HELP)}")
        else:
            own.append(word)
            while "=" not in word and position < len(words) and not words[position].startswith("-"):
                own.append(words[position])
                position += 1
    return builder.request(), own
