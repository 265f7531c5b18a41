"""``sevplug platform``: an emulated platform's certificates, and chains of any platform."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sevplug.cli.documents import Output, plain_errors, read_document, write_documents
from sevplug.core.errors import ConfigError, SevplugError

if TYPE_CHECKING:
    from sevplug.sevapi.amd_certificates import AmdCertificate
    from sevplug.sevapi.certificate_files import CertificateSet


def command() -> click.Group:
    """A fresh ``platform`` command with its own commands."""
    group = click.Group(
        "platform",
        help="Make and show an emulated platform, export its certificates, verify chains of any platform.",
        short_help="Emulated platforms and their certificates.",
    )
    folder = click.Argument(["folder"], metavar="DIR")
    group.add_command(
        click.Command(
            "new",
            callback=_new,
            help="Make an emulated platform in DIR.  Its keys protect nothing.",
            params=[
                folder,
                click.Option(["--seed"], metavar="TEXT", help="The same keys for the same text; for tests."),
            ],
        )
    )
    group.add_command(click.Command("show", callback=_show, help="Say what is in DIR.", params=[folder]))
    group.add_command(
        click.Command(
            "export",
            callback=_export,
            help="Write the certificates of the platform in DIR into the folder OUT: pdh.cert and cert_chain.cert as "
            "QMP has them in query-sev-capabilities (but with the CEK signed), ask_ark.cert as AMD publishes it, "
            "sev_chain.cert as sevctl export writes it, and full_chain.cert as sevctl export --full does.",
            short_help="Write certificates into a folder.",
            params=[folder, click.Argument(["out"], metavar="OUT")],
        )
    )
    group.add_command(
        click.Command(
            "verify",
            callback=_verify,
            help="Verify the certificates in FILES, from the root down: AMD's own, or those with a platform's chain "
            "(PDH, PEK, OCA, CEK) below; raw or in base64, one or many a file, in any order.  Without AMD's, the "
            "emulation's are taken.  Exit status 1 when they do not verify, or up to a root that is not known.",
            short_help="Verify a chain of certificates.",
            params=[
                click.Argument(["files"], metavar="FILES...", nargs=-1, required=True),
                click.Option(["--any-root"], is_flag=True, help="Accept a root that is not known."),
            ],
        )
    )
    return group


def _new(folder: str, seed: str | None) -> None:
    from sevplug.platform.firmware import new_platform
    from sevplug.platform.randomness import SeededRandom
    from sevplug.platform.store import PlatformStore

    random = os.urandom if seed is None else SeededRandom(os.fsencode(seed))
    with plain_errors():
        record = new_platform(PlatformStore(Path(folder)), random=random, seeded=seed is not None)
    click.echo(f"{folder}: emulated platform {record.chip.chip_id.hex()}")
    click.echo("it protects nothing: its root is published, its private keys are in the folder")


def _show(folder: str) -> None:
    from sevplug.platform.firmware import Firmware
    from sevplug.platform.store import PlatformStore

    with plain_errors():
        store = PlatformStore(Path(folder))
        record = store.load()
        firmware = Firmware(store)
    identity = record.identity
    click.echo(f"platform  emulated, API {firmware.api}")
    click.echo(f"id        {firmware.get_id().hex()}")
    click.echo(f"keys      {'from a seed: others have them' if record.seeded else 'random'}")
    if identity is None:
        click.echo("identity  none: made at the next INIT")
        return
    click.echo(f"owner     {'an owner: the OCA is external' if identity.owned else 'none: the platform is its own'}")
    chain = identity.chain(record.chip.cek)
    for certificate in (chain.pdh, chain.pek, chain.oca, chain.cek):
        click.echo(f"{certificate.name:10}{_fingerprint(certificate.body)}")


def _export(folder: str, out: str) -> None:
    from sevplug.platform.identity import emulated_chain
    from sevplug.platform.root import emulated_root
    from sevplug.platform.store import PlatformStore

    with plain_errors():
        record = PlatformStore(Path(folder)).load()
    if record.identity is None:
        raise ConfigError(f"{folder}: the platform was reset and has no identity, expected one that was started since")
    target = Path(out)
    try:
        target.mkdir(exist_ok=True)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{out}: {getattr(error, 'strerror', None) or 'not a file name'}") from None
    chain = record.identity.chain(record.chip.cek)
    files = {
        "pdh.cert": chain.pdh.to_bytes(),
        "cert_chain.cert": chain.cert_chain,
        "ask_ark.cert": emulated_root().to_bytes(),
        "sev_chain.cert": chain.to_bytes(),
        "full_chain.cert": emulated_chain(record.chip, record.identity),
    }
    write_documents({target / name: Output(data) for name, data in files.items()})
    for name in files:
        click.echo(str(target / name))


def _verify(files: tuple[str, ...], any_root: bool) -> None:
    from sevplug.platform.root import emulated_root
    from sevplug.sevapi.chain import check_amd_chain, check_chain
    from sevplug.sevapi.errors import FirmwareError

    with plain_errors():
        found = _collect(files)
        platform, amd = found.platform_chain(), found.amd_chain() or emulated_root()
    try:
        if platform is None:
            check_amd_chain(amd)
        else:
            check_chain(platform, amd)
    except FirmwareError as error:
        raise SevplugError(f"not verified: {error.detail}") from None
    known = _root(amd.ark)
    if known is None and not any_root:
        raise SevplugError(f"not verified: the root {amd.ark.fingerprint.hex()} is not known, see --any-root")
    click.echo(f"root  {known or f'not known: {amd.ark.fingerprint.hex()}'}")
    click.echo(f"ASK   {_fingerprint(amd.ask.body)}, signed by the root")
    if platform is not None:
        click.echo(f"CEK   {_fingerprint(platform.cek.body)}, signed by the ASK")
        click.echo(f"OCA   {_fingerprint(platform.oca.body)}, signed by itself")
        click.echo(f"PEK   {_fingerprint(platform.pek.body)}, signed by CEK and OCA")
        click.echo(f"PDH   {_fingerprint(platform.pdh.body)}, signed by the PEK")
    click.echo("verified")


def _collect(files: tuple[str, ...]) -> CertificateSet:
    from sevplug.sevapi.certificate_files import collect_certificates, split_certificates
    from sevplug.sevapi.errors import FormatError

    certificates = []
    for path in files:
        data = read_document("certificate", path)
        try:
            certificates += split_certificates(data)
        except FormatError as error:
            raise ConfigError(f"certificate {path}: {str(error).removeprefix('certificates: ')}") from None
    return collect_certificates(certificates)


def _root(ark: AmdCertificate) -> str | None:
    from sevplug.platform.root import ROOT_NAME, is_emulated_root
    from sevplug.sevapi.amd_certificates import root_name

    return f"{ROOT_NAME}: it protects nothing" if is_emulated_root(ark) else root_name(ark)


def _fingerprint(body: bytes) -> str:
    import hashlib

    return hashlib.sha256(body).hexdigest()
