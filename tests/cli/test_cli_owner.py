"""``sevplug owner``: the whole conversation, and what it refuses."""

from __future__ import annotations

import base64
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sev_platforms import API, CHAIN, IDENTITY

from sevplug.cli.app import run_app
from sevplug.owner.expect import Vcpus, expected_digest
from sevplug.sevapi.keys import TransportKeys
from sevplug.sevapi.measurement import measure
from sevplug.sevapi.packet import SecretPacket, open_packet
from sevplug.sevapi.policy import Policy
from sevplug.sevapi.secret_table import LUKS_KEY, parse_secret_table
from sevplug.sevapi.session import open_session
from sevplug.sevapi.vmsa import VmsaVariant

FIRMWARE = b"firmware" * 512
KEYS = TransportKeys(tek=b"encryption key!!", tik=b"integrity key!!!")
DIGEST = expected_digest(FIRMWARE)
MEASUREMENT = measure(KEYS.tik, API, Policy(1), DIGEST, bytes(range(16)))
VERSION = ["--api-major", "1", "--api-minor", "0x37", "--build-id", "24"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pdh").write_bytes(CHAIN.pdh.to_bytes())
    (tmp_path / "fw").write_bytes(FIRMWARE)
    (tmp_path / "tik").write_bytes(KEYS.tik)
    (tmp_path / "tek").write_bytes(KEYS.tek)
    (tmp_path / "tk").write_bytes(KEYS.tek + KEYS.tik)
    (tmp_path / "passphrase").write_bytes(b"S3CRET")
    (tmp_path / "blob").write_bytes(MEASUREMENT.blob)
    return tmp_path


class Host:
    """A QMP server that answers as QEMU does and remembers what it was asked."""

    def __init__(self, path: Path) -> None:
        self.address = f"unix:{path}"
        self.asked: list[dict[str, object]] = []
        self.policy = 1
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(str(path))
        self._server.listen()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._thread.join(10)

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            with client, client.makefile("rwb") as file:
                file.write(b'{"QMP": {"version": {}, "capabilities": []}}\r\n')
                file.flush()
                for line in file:
                    request = json.loads(line)
                    self.asked.append(request)
                    file.write(b'{"event": "STOP", "timestamp": {}}\r\n')
                    file.write(json.dumps(self._answer(request["execute"])).encode() + b"\r\n")
                    file.flush()

    def _answer(self, command: str) -> dict[str, object]:
        if command == "query-sev":
            numbers = {"api-major": 1, "api-minor": 55, "build-id": 24, "policy": self.policy}
            return {"return": {"enabled": True, "state": "launch-secret", "handle": 1, **numbers}}
        if command == "query-sev-launch-measure":
            return {"return": {"data": MEASUREMENT.to_base64()}}
        if command == "cont":
            return {"error": {"class": "GenericError", "desc": "not now"}}
        return {"return": {}}


@pytest.fixture
def host(folder: Path) -> Iterator[Host]:
    host = Host(folder / "qmp")
    yield host
    host.close()


def run(line: str, *more: str) -> int:
    return run_app(["owner", *line.split(), *more])


def error_of(capsys: pytest.CaptureFixture[str]) -> str:
    told = capsys.readouterr()
    assert told.err.startswith("sevplug: error: ")
    assert told.err.count("\n") == 1
    assert "key!!" not in told.err
    assert "S3CRET" not in told.err
    return told.err.removeprefix("sevplug: error: ").rstrip("\n")


@pytest.mark.parametrize("policy", ["5", "0x5"])
def test_a_session_has_the_files_of_sevctl(folder: Path, policy: str):
    assert run(f"session --name x pdh {policy}") == 0
    names = ("x_tik.bin", "x_tek.bin", "x_godh.b64", "x_session.b64")
    tik, tek, godh, session = ((folder / name).read_bytes() for name in names)
    assert [(folder / name).stat().st_mode & 0o777 for name in names[:2]] == [0o600, 0o600]
    opened = open_session(IDENTITY.pdh_key, base64.b64decode(godh), base64.b64decode(session), Policy(5), API)
    assert opened == TransportKeys(tek, tik)


def test_a_session_may_carry_keys_that_are_there_and_take_a_whole_chain_in_base64(folder: Path):
    (folder / "chain").write_bytes(base64.b64encode(CHAIN.to_bytes()))
    assert run("session chain 1 --tk tk") == 0
    assert (folder / "vm_tik.bin").read_bytes() == KEYS.tik
    assert (folder / "vm_tek.bin").read_bytes() == KEYS.tek


def test_what_to_expect(folder: Path, capsys: pytest.CaptureFixture[str]):
    assert run("expect -f fw") == 0
    assert capsys.readouterr().out == f"launch digest       {DIGEST.hex()}\n"
    assert run("expect -f fw --format base64") == 0
    assert capsys.readouterr().out == f"launch digest       {base64.b64encode(DIGEST).decode()}\n"
    for nonce in (bytes(range(16)).hex(), base64.b64encode(bytes(range(16))).decode()):
        assert run("expect -f fw --tik tik --mnonce", nonce, *VERSION) == 0
        assert capsys.readouterr().out.endswith(f"launch measurement  {MEASUREMENT.to_base64()}\n")


def test_what_to_expect_of_an_es_guest(folder: Path, capsys: pytest.CaptureFixture[str]):
    for words, vcpus in (
        ("--cpu EPYC-Milan-v2", Vcpus(1, 0xA00F11)),
        ("--cpu-family 25 --cpu-model 1 --cpu-stepping 1 --vmsa init", Vcpus(1, 0xA00F11, VmsaVariant.INIT)),
        ("--cpu EPYC-Rome --sev-features 0x20", Vcpus(1, 0x830F10, sev_features=0x20)),
    ):
        assert run(f"expect -f fw --policy 0x5 {words}") == 0
        assert capsys.readouterr().out == f"launch digest       {expected_digest(FIRMWARE, vcpus=vcpus).hex()}\n"


@pytest.mark.parametrize("keys", ["--tik tik", "--tik tik --tek tek", "--tk tk"])
@pytest.mark.parametrize("given", ["blob", MEASUREMENT.to_base64()], ids=["file", "text"])
def test_a_measurement_is_verified(folder: Path, capsys: pytest.CaptureFixture[str], keys: str, given: str):
    assert run(f"verify -f fw {keys} -m", given, *VERSION) == 0
    assert capsys.readouterr().out.startswith("verified: policy 0x1 (nodbg), API 1.55 build 24, launch digest ")


@pytest.mark.parametrize("change", ["--policy 0", "--build-id 25", "-f tk", "--tik tek"])
def test_a_measurement_of_another_launch_is_not(folder: Path, capsys: pytest.CaptureFixture[str], change: str):
    assert run("verify -f fw --tik tik -m blob", *VERSION, *change.split()) == 1
    assert error_of(capsys).startswith("not verified: launch measurement: does not match; expected ")


def test_the_conversation_at_a_qmp_server(folder: Path, host: Host, capsys: pytest.CaptureFixture[str]):
    assert run(f"verify -f fw --tk tk --qmp {host.address}") == 0
    measurement = capsys.readouterr().out.split()[-1]
    assert run("seal --tk tk --secret luks-key=passphrase --secret-header h --secret-payload p -m", measurement) == 0
    assert run(f"inject --qmp {host.address} --secret-header h --secret-payload p --gpa 0x10000") == 0
    asked = host.asked[-1]
    assert asked["execute"] == "sev-inject-launch-secret"
    arguments = asked["arguments"]
    assert isinstance(arguments, dict)
    assert arguments["gpa"] == 0x10000
    packet = SecretPacket(base64.b64decode(arguments["packet-header"]), base64.b64decode(arguments["secret"]))
    assert parse_secret_table(open_packet(packet, KEYS, MEASUREMENT)) == {LUKS_KEY: b"S3CRET"}


def test_a_packet_may_be_raw(folder: Path, host: Host):
    assert run("seal --tk tk -m blob -s luks-key=passphrase --secret-header h --secret-payload p") == 0
    for name in ("h", "p"):
        (folder / name).write_bytes(base64.b64decode((folder / name).read_bytes()))
    assert run(f"inject --qmp {host.address} --secret-header h --secret-payload p") == 0
    assert "gpa" not in host.asked[-1]["arguments"]  # type: ignore[operator]


def test_what_the_host_reports_is_compared(folder: Path, host: Host, capsys: pytest.CaptureFixture[str]):
    host.policy = 0
    assert run(f"verify -f fw --tk tk --qmp {host.address}") == 1
    assert error_of(capsys).startswith("not verified: launch: expected policy 0x1 (nodbg), the host reports 0x0")
    host.policy = 1
    assert run(f"verify -f fw --tk tk --qmp {host.address} --api-major 1 --api-minor 55 --build-id 23") == 1
    assert "expected API 1.55 build 23, the host reports 1.55 build 24" in error_of(capsys)


def test_what_the_host_refuses_is_told_in_its_words(folder: Path, host: Host, capsys: pytest.CaptureFixture[str]):
    assert run("seal --tk tk -m blob -s luks-key=passphrase --secret-header h --secret-payload p") == 0
    assert run(f"inject --qmp {host.address} --secret-header h --secret-payload p --cont") == 2
    assert error_of(capsys) == f"QMP {host.address}: cont: not now"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("session none 1", "PDH none: No such file or directory"),
        ("session fw 1", "PDH: certificates: at offset 0x0: expected a certificate of version 1"),
        ("session pdh x", "POLICY 'x': expected a number of at most 32 bits, decimal or 0x..."),
        ("session pdh 0x100000000", "POLICY '0x100000000': expected a number of at most 32 bits, decimal or 0x..."),
        ("session pdh 1 --tik tik", "--tik, --tek: expected both of them, or --tk"),
        ("session pdh 1 --tik tik --tk tk", "--tk: expected it or --tik and --tek, not both"),
        ("session pdh 1 --tk tik", "--tk tik: expected 32 bytes, found 16"),
        ("session -n no/x pdh 1", "no/x_tik.bin: No such file or directory, expected a writable file"),
        ("expect -f none", "--firmware none: No such file or directory"),
        ("expect -f fw -r fw", "expectation: an initrd or a kernel command line needs a kernel"),
        ("expect -f fw -k fw", "expectation: SEV: kernel specified but guest firmware has no hashes table GUID"),
        (
            "expect -f fw --tik tik",
            "--api-major, --mnonce: expected, a launch measurement needs key, version and nonce",
        ),
        ("expect -f fw --num-cpus 2", "--num-cpus: for an SEV-ES policy (0x4) only, found policy 0x1 (nodbg)"),
        (
            "expect -f fw --policy 4",
            "--cpu: an SEV-ES launch measures the CPU's model, expected it or the numbers of it",
        ),
        (
            "expect -f fw --policy 4 --cpu EPYC -n 2",
            "expectation: number of vCPUs: more than one needs firmware with an SEV-ES reset vector in its GUID table",
        ),
        ("verify -f fw --tik tik", "--measurement, --qmp: expected one of them"),
        ("verify -f fw -m blob", "--tik: expected it, or --tk"),
        ("verify -f fw --tik tik -m blob", "--api-major, --api-minor, --build-id: expected with --measurement"),
        (
            "verify -f fw --tik tik -m blob --api-major 1",
            "--api-major, --api-minor, --build-id: expected all three of them",
        ),
        ("verify -f fw --tik tik --qmp unix:none", "QMP unix:none: No such file or directory"),
        ("verify -f fw --tik tik --qmp elsewhere", "QMP elsewhere: expected unix:PATH or tcp:HOST:PORT"),
        (
            "seal --tk tk -m AAAA -s luks-key=passphrase --secret-header h --secret-payload p",
            "--measurement: expected 48 bytes in base64, or a file",
        ),
        (
            "seal --tk tk -m fw -s luks-key=passphrase --secret-header h --secret-payload p",
            "--measurement fw: expected 48 bytes, raw or in base64, found 3072 bytes in base64",
        ),
        (
            "seal --tk tk -m blob -s luks-key=passphrase --secret-header h --secret-payload no/p",
            "no/p: No such file or directory, expected a writable file",
        ),
        (
            "inject --qmp unix:none --secret-header tik --secret-payload tik",
            "--secret-header tik: expected 52 bytes, raw or in base64, found 16 bytes",
        ),
    ],
)
def test_bad_input_is_one_line(folder: Path, capsys: pytest.CaptureFixture[str], line: str, message: str):
    before = sorted(path.name for path in folder.iterdir())
    assert run(line) == 2
    assert error_of(capsys) == message
    assert sorted(path.name for path in folder.iterdir()) == before
