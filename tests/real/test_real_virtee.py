"""Certificates, sessions, packets and reports, exchanged with the virtee "sev" crate in both directions."""

from __future__ import annotations

import subprocess
from pathlib import Path

import attrs
import pytest
from parts import find_virtee, find_virtee_peer
from sev_platforms import AMD, API, CHAIN, IDENTITY, changed

from sevplug.cli.app import run_app
from sevplug.sevapi.amd_certificates import AmdCertificate, check_root, root_name
from sevplug.sevapi.certificates import SevCertificate
from sevplug.sevapi.errors import FirmwareError
from sevplug.sevapi.keys import TransportKeys
from sevplug.sevapi.measurement import measure
from sevplug.sevapi.packet import SecretPacket, open_packet
from sevplug.sevapi.policy import Policy
from sevplug.sevapi.report import make_report
from sevplug.sevapi.secret_table import LUKS_KEY, build_secret_table, parse_secret_table
from sevplug.sevapi.session import open_session

pytestmark = pytest.mark.real

FULL = CHAIN.to_bytes() + AMD.to_bytes()
KEYS = TransportKeys(tek=b"encryption key!!", tik=b"integrity key!!!")


@attrs.frozen
class Peer:
    """The crate's program and a folder for its files."""

    program: Path
    folder: Path

    def accepts(self, *words: object) -> bool:
        """Whether it did what it was asked; it refuses with status 1 and nothing else."""
        run = subprocess.run(
            [self.program, *map(str, words)], capture_output=True, text=True, timeout=60, check=False, cwd=self.folder
        )
        assert run.returncode in (0, 1), run.stderr
        return run.returncode == 0

    def write(self, name: str, data: bytes) -> Path:
        """A file in the folder."""
        path = self.folder / name
        path.write_bytes(data)
        return path


@pytest.fixture
def peer(tmp_path: Path) -> Peer:
    return Peer(find_virtee_peer(), tmp_path)


@pytest.mark.parametrize(("chip", "root"), [("naples", "AMD Naples"), ("rome", "AMD Rome")])
def test_real_chips_verify(chip: str, root: str, capsys: pytest.CaptureFixture[str]) -> None:
    files = [str(path) for path in sorted((find_virtee() / "certs" / chip).glob("*.cert"))]
    assert len(files) == 6
    assert run_app(["platform", "verify", *files]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0] == f"root  {root}"
    assert told[-1] == "verified"
    # AMD's two alone, as they come from AMD.
    assert run_app(["platform", "verify", *(file for file in files if file.endswith(("ark.cert", "ask.cert")))]) == 0


@pytest.mark.parametrize("chip", ["naples", "rome"])
@pytest.mark.parametrize("name", ["ark", "ask", "cek", "oca", "pdh", "pek"])
def test_a_real_certificate_gives_back_its_bytes_and_no_change_of_it_verifies(
    chip: str, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = find_virtee() / "certs" / chip
    data = (folder / f"{name}.cert").read_bytes()
    parsed = (AmdCertificate if name in ("ark", "ask") else SevCertificate).from_bytes(data)
    assert parsed.to_bytes() == data
    others = [str(path) for path in folder.glob("*.cert") if path.stem != name]
    (tmp_path / "changed").write_bytes(changed(data, 0x30, 1))
    assert run_app(["platform", "verify", str(tmp_path / "changed"), *others]) == 1
    assert capsys.readouterr().err.startswith("sevplug: error: not verified: ")


def test_a_chip_of_one_kind_does_not_verify_under_the_root_of_another(capsys: pytest.CaptureFixture[str]) -> None:
    certs = find_virtee() / "certs"
    files = [*(certs / "rome").glob("a*.cert"), *(certs / "naples").glob("[!a]*.cert")]
    assert run_app(["platform", "verify", *map(str, files)]) == 1
    assert "CEK certificate: not signed by a key for ASK" in capsys.readouterr().err


def test_the_root_of_naples_comes_without_its_signature_too() -> None:
    ark = AmdCertificate.from_bytes((find_virtee() / "certs" / "naples" / "ark.cert").read_bytes()[:576])
    check_root(ark)
    assert root_name(ark) == "AMD Naples"
    with pytest.raises(FirmwareError):
        check_root(attrs.evolve(ark, key_id=bytes(16)))


def test_the_crate_verifies_our_chain(peer: Peer) -> None:
    assert peer.accepts("verify", peer.write("chain", FULL))


@pytest.mark.parametrize("offset", [0x20, 0x420, 0x844, 0x1068, 0x188C, 0x20B0, 0x20C0, 0x2700, 0x2C00])
def test_the_crate_refuses_what_we_refuse(peer: Peer, offset: int, capsys: pytest.CaptureFixture[str]) -> None:
    chain = peer.write("chain", changed(FULL, offset, 1))
    assert not peer.accepts("verify", chain)
    assert run_app(["platform", "verify", str(chain)]) in (1, 2)
    capsys.readouterr()


@pytest.mark.parametrize("policy", [0, 1, 0x3F])
def test_a_session_of_the_crate_opens(peer: Peer, policy: int) -> None:
    assert peer.accepts("session", peer.write("pdh", CHAIN.pdh.to_bytes()), policy, peer.folder)
    tik, tek, godh, session = ((peer.folder / name).read_bytes() for name in ("tik", "tek", "godh", "session"))
    assert open_session(IDENTITY.pdh_key, godh, session, Policy(policy), API) == TransportKeys(tek, tik)


def test_a_secret_of_the_crate_opens_and_our_measurement_is_verified_by_it(peer: Peer) -> None:
    digest = bytes(range(32))
    measurement = measure(KEYS.tik, API, Policy(1), digest, bytes(range(16)))
    words = [
        peer.write("tik", KEYS.tik),
        peer.write("tek", KEYS.tek),
        1,
        API.major,
        API.minor,
        API.build,
        peer.write("digest", digest),
        peer.write("measurement", measurement.blob),
        peer.write("table", build_secret_table({LUKS_KEY: b"passphrase"})),
        peer.folder,
    ]
    assert peer.accepts("secret", *words)
    packet = SecretPacket((peer.folder / "header").read_bytes(), (peer.folder / "payload").read_bytes())
    assert parse_secret_table(open_packet(packet, KEYS, measurement)) == {LUKS_KEY: b"passphrase"}
    peer.write("digest", bytes(32))
    assert not peer.accepts("secret", *words)


def test_the_crate_verifies_our_report(peer: Peer) -> None:
    chain = peer.write("chain", CHAIN.to_bytes())
    report = make_report(IDENTITY.pek_signer, bytes(range(16)), bytes(range(32)), Policy(1)).to_bytes()
    assert peer.accepts("report", chain, peer.write("report", report))
    for offset in (0, 0x10, 0x30, 0x40, 0x90):
        assert not peer.accepts("report", chain, peer.write("report", changed(report, offset, 1)))
