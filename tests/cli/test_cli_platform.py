"""``sevplug platform``."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from sev_platforms import AMD, CHAIN

from sevplug.cli.app import run_app
from sevplug.platform.store import PlatformStore
from sevplug.sevapi.chain import check_chain

EXPORTED = ["ask_ark.cert", "cert_chain.cert", "full_chain.cert", "pdh.cert", "sev_chain.cert"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "full").write_bytes(CHAIN.to_bytes() + AMD.to_bytes())
    (tmp_path / "junk").write_bytes(b"junk")
    return tmp_path


def run(*arguments: object) -> int:
    return run_app([str(argument) for argument in arguments])


def error_of(capsys: pytest.CaptureFixture[str]) -> str:
    told = capsys.readouterr()
    assert told.err.startswith("sevplug: error: ")
    assert told.err.count("\n") == 1
    return told.err.removeprefix("sevplug: error: ").rstrip("\n")


def test_a_platform_is_made_shown_exported_and_verified(folder: Path, capsys: pytest.CaptureFixture[str]):
    made, out = folder / "platform", folder / "out"
    assert run("platform", "new", made, "--seed", "tests") == 0
    assert "emulated platform 736576706c756720656d756c61746564" in capsys.readouterr().out
    assert run("platform", "show", made) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("platform  emulated, API 1.55 build 24\n")
    assert "keys      from a seed: others have them\n" in shown
    record = PlatformStore(made).load()
    assert f"{record.chip.cek_key.scalar:x}" not in shown
    assert run("platform", "export", made, out) == 0
    assert sorted(path.name for path in out.iterdir()) == EXPORTED
    capsys.readouterr()
    assert run("platform", "verify", out / "full_chain.cert") == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0] == "root  the published test root of sevplug's emulation: it protects nothing"
    assert told[-1] == "verified"
    assert record.identity is not None
    check_chain(record.identity.chain(record.chip.cek), AMD)
    # In parts, in base64, and without AMD's certificates, which are the emulation's then.
    (out / "pdh.b64").write_bytes(base64.encodebytes((out / "pdh.cert").read_bytes()))
    assert run("platform", "verify", out / "ask_ark.cert", out / "cert_chain.cert", out / "pdh.b64") == 0
    assert run("platform", "verify", out / "sev_chain.cert") == 0
    assert run("platform", "verify", out / "ask_ark.cert") == 0


def test_random_keys_are_said_to_be_random(folder: Path, capsys: pytest.CaptureFixture[str]):
    assert run("platform", "new", folder / "a") == 0
    assert run("platform", "new", folder / "b") == 0
    assert PlatformStore(folder / "a").load() != PlatformStore(folder / "b").load()
    capsys.readouterr()
    assert run("platform", "show", folder / "a") == 0
    assert "keys      random\n" in capsys.readouterr().out


def test_no_platform_is_put_over_another(folder: Path, capsys: pytest.CaptureFixture[str]):
    assert run("platform", "new", folder / "a") == 0
    before = PlatformStore(folder / "a").path.read_bytes()
    capsys.readouterr()
    assert run("platform", "new", folder / "a") == 2
    assert error_of(capsys) == f"{folder}/a: there is a platform in it already"
    assert PlatformStore(folder / "a").path.read_bytes() == before


def test_a_chain_that_does_not_verify_is_named(folder: Path, capsys: pytest.CaptureFixture[str]):
    data = bytearray(CHAIN.to_bytes() + AMD.to_bytes())
    data[0x420] ^= 1
    (folder / "bad").write_bytes(data)
    assert run("platform", "verify", folder / "bad") == 1
    assert error_of(capsys) == "not verified: PDH certificate: the signature is not that of this PEK"


def test_a_root_that_is_not_known_is_not_trusted(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("sevplug.platform.root.is_emulated_root", lambda _ark: False)
    assert run("platform", "verify", folder / "full") == 1
    assert error_of(capsys).startswith("not verified: the root ")
    assert run("platform", "verify", "--any-root", folder / "full") == 0
    assert capsys.readouterr().out.startswith("root  not known: ")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("show {0}/none", "{0}/none: no platform in it, expected emulated-platform.json"),
        ("export {0}/none {0}/out", "{0}/none: no platform in it, expected emulated-platform.json"),
        ("new {0}/none/deep", "{0}/none/deep: No such file or directory"),
        ("new {0}/junk", "{0}/junk: File exists"),
        ("verify {0}/none", "certificate {0}/none: No such file or directory"),
        ("verify {0}/junk", "certificate {0}/junk: at offset 0x0: expected a certificate of version 1"),
    ],
)
def test_bad_input_is_one_line(folder: Path, capsys: pytest.CaptureFixture[str], line: str, message: str):
    before = sorted(path.name for path in folder.iterdir())
    assert run("platform", *line.format(folder).split()) == 2
    assert error_of(capsys) == message.format(folder)
    assert sorted(path.name for path in folder.iterdir()) == before


def test_a_missing_link_is_named(folder: Path, capsys: pytest.CaptureFixture[str]):
    (folder / "pdh").write_bytes(CHAIN.pdh.to_bytes())
    assert run("platform", "verify", folder / "pdh") == 2
    assert error_of(capsys) == "certificates: the PEK is missing"
