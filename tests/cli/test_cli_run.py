"""Whole runs, as a user starts them: the embedded guest, small guests, time-outs, signals and lost readers."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
from kernels import bzimage
from sev_guests import firmware_with_hash_area

from sevplug.boot import embedded
from sevplug.cli.app import run_app
from sevplug.cli.owner_role import play_owner
from sevplug.core.config import BootImages, Image, MachineConfig
from sevplug.core.errors import LaunchRefused
from sevplug.core.machine import Machine
from sevplug.core.plugins import Selection, load_plugins

COMMAND = [sys.executable, "-c", "from sevplug.cli import main; main()"]
RESET_VECTOR = 0xFF0
SPIN = b"\xeb\xfe"  # jmp .
HALT = b"\xfa\xf4"  # cli; hlt
SAY_A = b"\xba\xf8\x03\xb0\x41\xee\xb0\x0a\xee"  # mov dx, 0x3f8; mov al, 'A'; out dx, al; mov al, 10; out dx, al


def firmware(folder: Path, code: bytes) -> str:
    """A 4 KiB image that runs ``code`` (16-bit, at most 16 bytes) at the reset vector."""
    path = folder / "firmware.bin"
    path.write_bytes(bytes(RESET_VECTOR) + code.ljust(16, b"\xf4"))
    return str(path)


def run(*arguments: str, **kwargs: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=60, check=False, **kwargs)


@attrs.frozen
class Done:
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def here(capfd: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """The same as `run` in this process, which saves the start of another."""

    def run_here(*arguments: str) -> Done:
        status = run_app(arguments)
        return Done(status, *capfd.readouterr())

    return run_here


def test_run_shows_the_whole_workflow_of_the_embedded_guest():
    done = run("run")
    assert done.returncode == 0
    told = [line.split()[1] for line in done.stderr.splitlines() if re.match(r" +\d+\.\d{3}  ", line)]
    assert told == [
        "warning",
        "machine.built",
        "launch.start",
        "launch.update",
        "launch.measure",
        "owner.verified",
        "launch.secret",
        "run.resume",
        "run.end",
    ]
    assert "result" in done.stderr
    assert embedded.SECRET.decode() in done.stdout
    assert "\x1b" not in done.stderr


def test_the_summary_is_the_documented_document(tmp_path: Path, here: Callable[..., Done]):
    assert here("run", "--summary", str(tmp_path / "s.json"), "--serial", "null").returncode == 0
    document = json.loads((tmp_path / "s.json").read_text())
    assert document["result"] == "shutdown"
    assert set(document["counters"]) >= {"fills", "faults", "cpuid", "rdmsr", "wrmsr", "io", "interrupts"}
    assert {"logging", "measurement", "sev"} <= set(document["plugins"])
    assert document["seconds"] > 0
    assert "ram_sha256" not in document
    sev = document["sev"]
    assert sev["state"] == "running"
    assert re.fullmatch(r"[0-9a-f]{64}", sev["launch_digest"])
    assert {"policy", "measurement", "api_major", "api_minor", "build_id"} <= set(sev)


def test_two_runs_end_with_the_same_memory_whose_digest_is_told_when_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    def digest(*arguments: str) -> str:
        arguments = (
            "run",
            "--ram-digest",
            "--summary",
            str(tmp_path / "s"),
            "--serial",
            "null",
            "-m",
            "1M",
            *arguments,
        )
        assert run_app(arguments) == 0
        told = json.loads((tmp_path / "s").read_text())["ram_sha256"]
        assert re.search(rf"run\.ram +SHA-256 of 1 MiB of RAM: {told}\n", capsys.readouterr().err)
        assert re.fullmatch("[0-9a-f]{64}", told)
        return str(told)

    (tmp_path / "other").write_bytes(b"another secret")
    assert digest() == digest() != digest("--secret", f"{embedded.SECRET_GUID}={tmp_path / 'other'}")


def test_the_json_log_is_nothing_but_json(tmp_path: Path, here: Callable[..., Done]):
    done = here("run", "--log-format", "json", "--serial", "null")
    told = [json.loads(line) for line in done.stderr.splitlines()]
    assert told[-1]["event"] == "run.summary"
    assert all({"event", "level", "timestamp"} <= set(one) for one in told)


def test_without_the_logging_plugin_a_run_is_silent(here: Callable[..., Done]):
    done = here("run", "-P", "no:logging", "--serial", "null")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_plain_guest_has_no_launch(tmp_path: Path, here: Callable[..., Done]):
    done = here("run", "-P", "no:sev", "--serial", "null", "--summary", str(tmp_path / "s.json"))
    assert done.returncode in (0, 1)  # the self-test may well find that SEV is missing
    assert "launch" not in done.stderr
    assert "sev" not in json.loads((tmp_path / "s.json").read_text())


def test_a_guest_that_halts_did_not_end_in_order(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    arguments = ["run", "--bios", firmware(tmp_path, HALT), "--log-level", "error", "--summary", str(tmp_path / "s")]
    assert run_app(arguments) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("sevplug: error: the guest did not end in order: halted, ")
    assert json.loads((tmp_path / "s").read_text())["result"] == "halted"


def test_a_guest_that_spins_is_timed_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    arguments = ["run", "--bios", firmware(tmp_path, SPIN), "--timeout", "0.3", "--summary", str(tmp_path / "s")]
    assert run_app(arguments) == 3
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == "sevplug: error: the guest did not end in order: timeout, no end within 0.3 s, at rip 0xfff0"
    assert json.loads((tmp_path / "s").read_text())["result"] == "timeout"


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_spinning_guest_cleanly(number: signal.Signals, status: int, tmp_path: Path):
    summary = tmp_path / "s.json"
    arguments = ["run", "--bios", firmware(tmp_path, SPIN), "--summary", str(summary), "--timeout", "50"]
    with subprocess.Popen([*COMMAND, *arguments], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "run.resume" in line:
                break
        process.send_signal(number)
        rest = process.stderr.read()
        assert process.wait(20) == status
    assert "Traceback" not in rest
    assert json.loads(summary.read_text())["result"] == "quit"


def test_a_reader_that_leaves_does_not_disturb_the_guest():
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([*COMMAND, "run"], stdout=writing, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    os.close(writing)
    assert done.returncode == 0
    assert "Error" not in done.stderr
    assert "shutdown" in done.stderr


@pytest.mark.parametrize("arguments", [["plugins"], ["--help"], ["--version"]])
def test_a_reader_that_leaves_is_no_error(arguments: list[str]):
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [*COMMAND, *arguments], stdout=writing, stderr=subprocess.PIPE, text=True, timeout=60, check=False
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_guest_writes_to_the_file_that_serial_names(tmp_path: Path, here: Callable[..., Done]):
    out = tmp_path / "out.txt"
    done = here("run", "--bios", firmware(tmp_path, SAY_A + HALT), "--serial", f"file:{out}")
    assert done.stdout == ""
    assert out.read_text() == "A\n"


def test_the_qemu_spelling_runs_the_same_guest(tmp_path: Path, here: Callable[..., Done]):
    (tmp_path / "tik").write_bytes(bytes(range(16)))
    (tmp_path / "tek").write_bytes(bytes(range(16, 32)))
    keys = f"tik={tmp_path}/tik,tek={tmp_path}/tek"
    sev = f"sev-emulated,id=sev0,cbitpos=47,reduced-phys-bits=1,{keys}"
    arguments = ["-cpu", "EPYC-Milan", "-accel", "tcg", "-object", sev, "-machine", "memory-encryption=sev0"]
    done = here("qemu", *arguments, "-no-reboot")
    assert done.returncode == 0
    assert "no tik" not in done.stderr
    assert embedded.SECRET.decode() in done.stdout


def test_in_qemus_spelling_a_guest_is_plain_unless_told(tmp_path: Path, here: Callable[..., Done]):
    summary = tmp_path / "s.json"
    here("qemu", "-bios", firmware(tmp_path, HALT), "-display", "none", "--summary", str(summary))
    document = json.loads(summary.read_text())
    assert "sev" not in document
    assert "sev" not in document["plugins"]


def test_a_secret_arrives_with_the_owner_played_here(tmp_path: Path, here: Callable[..., Done]):
    (tmp_path / "secret").write_bytes(b"another demonstration")
    done = here("run", "--secret", f"{embedded.SECRET_GUID}={tmp_path}/secret")
    assert done.returncode == 0
    assert "another demonstration" in done.stdout
    assert "another demonstration" not in done.stderr


def test_an_owner_who_expected_another_firmware_refuses(tmp_path: Path):
    boot = embedded.load()
    assert boot.firmware is not None
    other = BootImages(firmware=Image(bytes(reversed(boot.firmware.data)), "other"))
    plugins = load_plugins(Selection(blocked=frozenset({"logging"})))
    with Machine(MachineConfig(boot=boot), plugins) as machine:
        machine.config = attrs.evolve(machine.config, boot=other)
        with pytest.raises(LaunchRefused) as caught:
            play_owner(machine, {embedded.SECRET_GUID: embedded.SECRET})
        assert machine.launch.state.value == "launch-secret"
    assert str(caught.value).startswith("the guest owner refuses the launch: launch measurement: does not match;")


def test_a_paused_guest_gets_its_secret_and_waits_for_qmp(tmp_path: Path):
    arguments = ["run", "-S", "--qmp", f"unix:{tmp_path}/qmp", "--timeout", "50"]
    with subprocess.Popen([*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert process.stdout is not None
        for line in process.stderr:
            assert "run.resume" not in line
            if "launch.secret" in line:
                break
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(20)
            client.connect(f"{tmp_path}/qmp")
            client.sendall(b'{"execute": "qmp_capabilities"} {"execute": "cont"}')
            assert "run.resume" in process.stderr.read()
        assert embedded.SECRET.decode() in process.stdout.read()
        assert process.wait(20) == 0


def test_more_memory_than_the_host_has_is_refused():
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))

    done = run("run", "-m", "64G", "--log-level", "error", preexec_fn=limit)
    assert done.returncode == 2
    assert done.stderr == f"sevplug: error: -m: the host has no {64 << 30} bytes of memory for the guest\n"


@pytest.mark.parametrize(
    ("command", "properties", "measured"),
    [
        (["run"], None, True),
        (["run"], "", True),
        (["run"], ",kernel-hashes=off", False),
        (["qemu", "-machine", "memory-encryption=sev0"], "", False),
        (["qemu", "-machine", "memory-encryption=sev0"], ",kernel-hashes=on", True),
    ],
    ids=["run", "run with an object", "run, off", "qemu", "qemu, on"],
)
def test_kernels_are_measured_by_default_in_run_and_when_asked_for_in_qemus_spelling(
    command: list[str], properties: str | None, measured: bool, tmp_path: Path
):
    (tmp_path / "firmware.fd").write_bytes(firmware_with_hash_area())
    (tmp_path / "bzImage").write_bytes(bzimage())
    dashes = "--" if command[0] == "run" else "-"
    words = [f"{dashes}bios", f"{tmp_path}/firmware.fd", f"{dashes}kernel", f"{tmp_path}/bzImage"]
    if properties is not None:
        words += [f"{dashes}object", f"sev-emulated,id=sev0,cbitpos=47,reduced-phys-bits=1{properties}"]
    assert run_app([*command, *words, f"{dashes}serial", "null", "--summary", f"{tmp_path}/s"]) == 1  # it just halts
    as_measured = dict.fromkeys(("kernel", "initrd", "command_line"), "as measured")
    assert json.loads((tmp_path / "s").read_text())["sev"].get("kernel_hashes") == (as_measured if measured else None)
