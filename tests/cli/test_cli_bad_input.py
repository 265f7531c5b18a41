"""Bad command lines: each ends in one exact line on stderr, nothing on stdout, and its exit status."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from kernels import bzimage

from sevplug.cli.app import run_app

GUID = "736869e5-84f0-4973-92ec-06879ce3da0b"
SEV0 = "sev-emulated,id=sev0,cbitpos=47,reduced-phys-bits=1"
NAMES = (
    "c-bit-checker, direct-boot, gdb, guest-watch, logging, measurement, pc-board, phases, progress, qmp, report, "
    "secret-injection, sev"
)

# (command line, message, exit status).  {tmp} is the fixture `folder`.
CASES: list[tuple[str, str, int]] = [
    # the command itself
    ("run -P nope", f"-P nope: no such plug-in is installed; there are {NAMES}", 2),
    ("run -P no:nope", f"-P no:nope: no such plug-in is installed; there are {NAMES}", 2),
    ("run -P no:", "-P no:: expected the name of a plug-in, or no: and a name", 2),
    ("run -SP logging", "-P: expected a word of its own, as in -P NAME", 2),
    ("run --timeout 0", "--timeout 0: expected a number of seconds above 0", 2),
    ("run -S", "-S: without a server nothing could ever let the guest run, expected --qmp or --gdb too", 2),
    ("qemu -S", "-S: without a server nothing could ever let the guest run, expected --qmp or --gdb too", 2),
    ("run --gdb 1234", "--gdb 1234: expected unix:PATH or tcp:127.0.0.1:PORT", 2),
    ("run --gdb unix:{tmp}/empty", "--gdb unix:{tmp}/empty: the file exists and is no socket", 2),
    ("qemu -gdb stdio", "-gdb stdio: not supported, expected tcp::PORT, unix:PATH,server=on,wait=off or none", 2),
    (
        "qemu -gdb tcp:10.0.0.1:1",
        "--gdb tcp:10.0.0.1:1,server=on,wait=off: 10.0.0.1, expected a loopback address (127.0.0.1, ::1, localhost)",
        2,
    ),
    ("qemu -P no:gdb -s", "-gdb tcp:127.0.0.1:1234,server=on,wait=off: no enabled plug-in takes this option", 2),
    # files
    ("run --bios {tmp}/missing", "--bios {tmp}/missing: No such file or directory", 2),
    ("run --bios {tmp}", "--bios {tmp}: Is a directory", 2),
    ("run --bios {tmp}/empty", "--bios {tmp}/empty: the file is empty", 2),
    ("run --bios {tmp}/big.bin", "--bios {tmp}/big.bin: 8388609 bytes, expected at most 8388608", 2),
    ("run --bios {tmp}/odd.bin", "firmware {tmp}/odd.bin: 4097 bytes, expected a multiple of 4096", 2),
    ("run --bios {tmp}/spin.bin --pflash {tmp}/spin.bin", "--bios, --pflash: expected one of them", 2),
    (
        "run --pflash a --pflash b --pflash c",
        "--pflash c: expected at most two, the firmware's code and its variables",
        2,
    ),
    ("run --pflash {tmp}/spin.bin --pflash {tmp}/missing", "--pflash {tmp}/missing: No such file or directory", 2),
    ("run --kernel {tmp}/missing", "--kernel {tmp}/missing: No such file or directory", 2),
    (
        "run -P no:sev --kernel {tmp}/secret",
        "kernel {tmp}/secret: not a bzImage, expected 'HdrS' at offset 0x202",
        2,
    ),
    (
        "run --kernel {tmp}/bzImage -P no:direct-boot",
        "--kernel: without firmware the plug-in direct-boot starts it, expected it to be on",
        2,
    ),
    ("run --kernel {tmp}/cut", "kernel {tmp}/cut: truncated, 3000 bytes, expected at least 3633", 2),
    (
        "run --kernel {tmp}/bzImage --bios {tmp}/spin.bin -m 1M",
        "kernel {tmp}/bzImage: 1600 bytes do not fit into 1048576 bytes of memory",
        2,
    ),
    (
        "run --kernel {tmp}/bzImage -m 2M",
        "kernel {tmp}/bzImage: needs 65536 bytes from 0x200000 on, expected more than 2097152 bytes of memory",
        2,
    ),
    (
        "run --kernel {tmp}/bzImage --initrd {tmp}/big.bin -m 4M",
        "initrd {tmp}/big.bin: 8388609 bytes do not fit beside the kernel, expected at most 1966080",
        2,
    ),
    (
        "run --kernel {tmp}/bzImage --bios {tmp}/spin.bin --initrd {tmp}/big.bin -m 4M",
        "initrd {tmp}/big.bin: 8388609 bytes do not fit beside the kernel, expected at most 2980287",
        2,
    ),
    (
        "run --kernel {tmp}/bzImage --append " + "x" * 2048,
        "command line (append): 2048 bytes, expected at most the 2047 that kernel {tmp}/bzImage takes",
        2,
    ),
    (
        "run --kernel {tmp}/bzImage --bios {tmp}/spin.bin --append " + "x" * 2048,
        "command line (append): 2048 bytes, expected at most the 2047 that kernel {tmp}/bzImage takes",
        2,
    ),
    (
        "run --bios {tmp}/ovmf -m 16M",
        "memory (-m): 16777216 bytes, expected at least 32M for OVMF (firmware {tmp}/ovmf)",
        2,
    ),
    (
        "qemu -bios {tmp}/ovmf -m 1",
        "memory (-m): 1048576 bytes, expected at least 32M for OVMF (firmware {tmp}/ovmf)",
        2,
    ),
    ("run --kernel {tmp}/bzImage --initrd {tmp}/empty", "--initrd {tmp}/empty: the file is empty", 2),
    ("qemu -kernel {tmp}/secret", "kernel {tmp}/secret: not a bzImage, expected 'HdrS' at offset 0x202", 2),
    (
        "qemu -bios {tmp}/spin.bin -kernel {tmp}/cut",
        "kernel {tmp}/cut: truncated, 3000 bytes, expected at least 3633",
        2,
    ),
    ("qemu -kernel {tmp}/empty", "-kernel {tmp}/empty: the file is empty", 2),
    ("qemu -kernel {tmp}/bzImage -initrd {tmp}/empty", "-initrd {tmp}/empty: the file is empty", 2),
    ("qemu -initrd {tmp}/secret", "-initrd only allowed with -kernel option", 2),
    ("qemu -append x", "-append only allowed with -kernel option", 2),
    (
        "qemu -kernel {tmp}/bzImage -m 2",
        "kernel {tmp}/bzImage: needs 65536 bytes from 0x200000 on, expected more than 2097152 bytes of memory",
        2,
    ),
    (
        "qemu -kernel {tmp}/bzImage -initrd {tmp}/big.bin -m 4",
        "initrd {tmp}/big.bin: 8388609 bytes do not fit beside the kernel, expected at most 1966080",
        2,
    ),
    (
        "qemu -kernel {tmp}/bzImage -bios {tmp}/spin.bin -append " + "x" * 2048,
        "command line (append): 2048 bytes, expected at most the 2047 that kernel {tmp}/bzImage takes",
        2,
    ),
    ("run --kernel {tmp}/old", "kernel {tmp}/old: no 64-bit entry point, expected bit 0 of xloadflags to be set", 2),
    (
        "run --kernel {tmp}/bzImage --object sev-emulated,id=s,cbitpos=47,reduced-phys-bits=1,kernel-hashes=on",
        "kernel-hashes=on: without firmware nobody checks them, the kernel itself is measured",
        2,
    ),
    (
        "run --kernel {tmp}/bzImage --secret luks-key={tmp}/secret",
        "--secret: a kernel without firmware has no place for one, expected firmware (--bios) too",
        2,
    ),
    ("run --kernel {tmp}/empty", "--kernel {tmp}/empty: the file is empty", 2),
    ("run --initrd {tmp}/secret", "--initrd only allowed with --kernel option", 2),
    ("run --append x", "--append only allowed with --kernel option", 2),
    (
        "run --summary {tmp}/no/s.json",
        "--summary {tmp}/no/s.json: No such file or directory, expected a writable file",
        2,
    ),
    ("run --log-file {tmp}", "--log-file {tmp}: Is a directory, expected a writable file", 2),
    ("run --serial file:{tmp}/no/out", "serial {tmp}/no/out: No such file or directory", 2),
    ("qemu -bios {tmp}/missing", "-bios {tmp}/missing: No such file or directory", 2),
    ("qemu -kernel {tmp}/missing", "-kernel {tmp}/missing: No such file or directory", 2),
    (
        "qemu -drive if=pflash,file={tmp}/missing",
        "-drive if=pflash {tmp}/missing: No such file or directory",
        2,
    ),
    # disks
    ("run --disk {tmp}/missing", "--disk {tmp}/missing: No such file or directory", 2),
    ("run --disk {tmp}/empty", "--disk {tmp}/empty: the file is empty, expected a raw disk image", 2),
    ("run --disk {tmp}", "--disk {tmp}: a directory, expected a raw disk image", 2),
    ("run --disk {tmp}/big.bin", "--disk {tmp}/big.bin: 8388609 bytes, expected a multiple of 512", 2),
    (
        "run --disk {tmp}/spin.bin,snapshot=on",
        "--disk {tmp}/spin.bin,snapshot=on: 'snapshot=on' is not supported, expected readonly=on or readonly=off",
        2,
    ),
    ("run --disk ,readonly=on", "--disk ',readonly=on': expected FILE[,readonly=on|off]", 2),
    ("qemu -drive if=virtio,file={tmp}/missing", "-drive {tmp}/missing: No such file or directory", 2),
    (
        "qemu -drive if=none,id=d,file={tmp}/empty -device virtio-blk-pci,drive=d",
        "-drive {tmp}/empty: the file is empty, expected a raw disk image",
        2,
    ),
    ("qemu -drive if=virtio,file={tmp}", "-drive {tmp}: a directory, expected a raw disk image", 2),
    (
        "qemu -drive if=virtio,file={tmp}/spin.bin -P no:pc-board",
        "-drive file={tmp}/spin.bin: no enabled plug-in takes this option",
        2,
    ),
    # values
    ("run -m 12x", "-m 12x: expected a size, such as 256M (suffixes b, k, M, G, T, P, E)", 2),
    ("run -m 0", "-m 0: 0 bytes of memory, expected 1M to 64G", 2),
    (
        "run --serial pty",
        "--serial pty: not supported, expected stdio, null, file:PATH, unix:PATH or tcp:127.0.0.1:PORT",
        2,
    ),
    ("run --serial unix:{tmp}", "serial unix:{tmp}: the file exists and is no socket", 2),
    ("run --machine nonsense=1", "machine option 'nonsense' is not known to any enabled plug-in", 2),
    ("run --machine nonsense", "--machine nonsense: Expected '=' after parameter 'nonsense'", 2),
    ("qemu -M nonsense=1", "machine option 'nonsense' is not known to any enabled plug-in", 2),
    ("run --machine memory-encryption=sev9", "No such memory encryption object 'sev9'", 2),
    ("run --machine confidential-guest-support=sev9", "Device 'sev9' not found", 2),
    ("run --object nonsense,id=a", "object type 'nonsense' (id=a) is not known to any enabled plug-in", 2),
    ("run --object nonsense", "--object nonsense: Parameter 'id' is missing", 2),
    (
        "run --object {sev0} --object {sev0}",
        "--object sev-emulated: Duplicate ID 'sev0' for object",
        2,
    ),
    (
        "run --object {sev0} -P no:sev",
        "object type 'sev-emulated' (id=sev0) is not known to any enabled plug-in",
        2,
    ),
    (
        "qemu -object {sev0}",
        "-object sev-emulated,id=sev0: nothing refers to this object, expected -machine memory-encryption=sev0",
        2,
    ),
    ("qemu -device e1000", "-device e1000: not supported; the only device that can be added is virtio-blk-pci", 2),
    ("qemu -accel kvm", "-accel kvm: not supported, expected -accel tcg (emulation)", 2),
    ("qemu -machine accel=kvm", "machine option accel=kvm: expected tcg", 2),
    ("qemu -machine q35", "machine type 'q35': expected pc or pc-i440fx-VERSION", 2),
    ("qemu -machine smm=on", "machine option smm=on: expected off, this board has none", 2),
    (
        "qemu -qmp unix:{tmp}/q,server=on -P no:qmp",
        "-qmp unix:{tmp}/q,server=on: no enabled plug-in takes this option",
        2,
    ),
    # secrets
    ("run --secret nonsense", "--secret: expected GUID=FILE", 2),
    (
        "run --secret nonsense={tmp}/secret",
        "--secret: 'nonsense': expected a GUID or one of the names luks-key",
        2,
    ),
    ("run --secret {guid}={tmp}/missing", "--secret: {tmp}/missing: No such file or directory", 2),
    ("run --secret {guid}={tmp}/empty", "--secret: {tmp}/empty: the file is empty", 2),
    (
        "run --secret {guid}={tmp}/big.bin",
        "--secret: {tmp}/big.bin: expected at most 16344 bytes, found more",
        2,
    ),
    (
        "run --secret {guid}={tmp}/secret --secret luks-key={tmp}/secret",
        "--secret: two secrets have the GUID {guid}",
        2,
    ),
    (
        "run --secret {guid}={tmp}/secret -P no:sev",
        "--secret: this guest cannot take one, expected the plug-ins sev, measurement and secret-injection to be on",
        2,
    ),
    (
        "run --secret {guid}={tmp}/secret --bios {tmp}/spin.bin",
        "SEV: no secret area found in OVMF, gpa must be specified.",
        4,
    ),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "empty").touch()
    (tmp_path / "key15").write_bytes(b"k" * 15)
    (tmp_path / "secret").write_bytes(b"S3CRET-CONTENT")
    (tmp_path / "spin.bin").write_bytes(b"\xeb\xfe" * 2048)
    (tmp_path / "ovmf").write_bytes((bytes(40) + b"_FVH").ljust(4096, b"\0"))
    (tmp_path / "odd.bin").write_bytes(bytes(4097))
    (tmp_path / "big.bin").write_bytes(bytes((8 << 20) + 1))
    (tmp_path / "bzImage").write_bytes(bzimage())
    (tmp_path / "cut").write_bytes(bzimage()[:3000])
    (tmp_path / "old").write_bytes(bzimage(protocol=0x20B))
    return tmp_path


@pytest.mark.parametrize(("line", "message", "status"), CASES, ids=[case[0] for case in CASES])
def test_a_bad_command_line_ends_in_one_line(
    line: str, message: str, status: int, folder: Path, capsys: pytest.CaptureFixture[str]
):
    places = {"tmp": folder, "guid": GUID, "sev0": SEV0}
    before = sorted(os.listdir(folder))
    arguments = [word.format(**places) for word in line.split()]
    if arguments[0] in ("run", "qemu") and "--log-file" not in arguments:
        # Warnings are the log's business, and stay out of the way here.
        arguments += ["--log-level", "error"]
    assert run_app(arguments) == status
    told = capsys.readouterr()
    assert told.err.splitlines() == [f"sevplug: error: {message.format(**places)}"]
    assert told.out == ""
    assert sorted(os.listdir(folder)) == before


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("nonsense", "nonsense"),
        ("--nonsense", "--nonsense"),
        ("run --nonsense", "--nonsense"),
        ("run disk.img", "disk.img"),
        ("run --bios", "--bios"),
        ("run --log-level loud", "--log-level"),
        ("qemu --nonsense", "--nonsense"),
        ("qemu --timeout", "--timeout"),
        ("plugins --nonsense", "--nonsense"),
    ],
)
def test_what_click_refuses_is_one_line_too(line: str, named: str, capsys: pytest.CaptureFixture[str]):
    # The rest of the text is click's, and changes between its releases.
    assert run_app(line.split()) == 2
    told = capsys.readouterr()
    assert told.err.startswith("sevplug: error: ")
    assert named in told.err
    assert told.err.count("\n") == 1
    assert told.out == ""


@pytest.mark.parametrize("field", ["tik", "tek"])
def test_a_key_of_another_length_is_refused(field: str, folder: Path, capsys: pytest.CaptureFixture[str]):
    path = f"{folder}/key15"
    assert run_app(["run", "--object", f"{SEV0},{field}={path}", "--log-level", "error"]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert f"{field}: {path}: expected 16 bytes, found 15 bytes" in told


def test_a_refused_launch_leaves_no_summary(folder: Path, capsys: pytest.CaptureFixture[str]):
    arguments = ["run", "--bios", f"{folder}/spin.bin", "--secret", f"{GUID}={folder}/secret"]
    before = sorted(os.listdir(folder))
    assert run_app([*arguments, "--summary", f"{folder}/s.json", "--log-level", "debug"]) == 4
    assert sorted(os.listdir(folder)) == before
    assert "S3CRET" not in capsys.readouterr().err
