"""``sevplug owner``: the guest owner's side of a launch, with sevctl's and libvirt's files and options."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from sevplug.cli.documents import Output, plain_errors, read_document, write_documents
from sevplug.cli.owner_options import (
    api_options,
    image_options,
    key_options,
    measurement_option,
    parse_number,
    policy_option,
    read_api,
    read_keys,
    read_measurement,
    read_wanted,
)
from sevplug.core.errors import ConfigError, SevplugError


def command() -> click.Group:
    """A fresh ``owner`` command with its own commands."""
    group = click.Group(
        "owner",
        help="The guest owner's side: make a session, say what to expect, verify it, seal and inject secrets.",
        short_help="The guest owner's side of a launch.",
    )
    group.add_command(
        click.Command(
            "session",
            callback=_session,
            help="Make a session for the platform whose PDH certificate is in the file PDH, and for the guest policy "
            "POLICY.  Writes what sevctl session does: NAME_tik.bin and NAME_tek.bin to keep, NAME_godh.b64 and "
            "NAME_session.b64 for the host (dh-cert-file and session-file).  Verify the platform's chain first.",
            short_help="Make a session for a platform.",
            params=[
                click.Argument(["pdh"], metavar="PDH"),
                click.Argument(["policy"], metavar="POLICY"),
                click.Option(["-n", "--name"], default="vm", show_default=True, metavar="NAME"),
                *key_options(),
            ],
        )
    )
    group.add_command(
        click.Command(
            "expect",
            callback=_expect,
            help="Print the launch digest to expect and, with the keys, the platform's version and a nonce, the launch "
            "measurement.",
            short_help="Say what to expect of a launch.",
            params=[
                *image_options(),
                policy_option(),
                *api_options(),
                *key_options(),
                click.Option(["--mnonce"], metavar="BASE64|HEX", help="The nonce in the measurement, 16 bytes."),
                click.Option(
                    ["--format", "form"],
                    type=click.Choice(["hex", "base64"]),
                    default="hex",
                    show_default=True,
                    help="How the digest is written; a measurement always is in base64.",
                ),
            ],
        )
    )
    group.add_command(
        click.Command(
            "verify",
            callback=_verify,
            help="Verify a launch measurement, given or asked for at a QMP server.  Exit status 1 when it is not that "
            "of the launch expected.",
            short_help="Verify a launch.",
            params=[
                *image_options(),
                policy_option(),
                *api_options(),
                *key_options(),
                measurement_option(),
                _qmp_option(required=False),
            ],
        )
    )
    group.add_command(
        click.Command(
            "seal",
            callback=_seal,
            help="Seal secrets for the guest of a launch measurement that was verified.",
            short_help="Seal secrets for a guest.",
            params=[
                *key_options(),
                measurement_option(),
                click.Option(
                    ["-s", "--secret"],
                    multiple=True,
                    required=True,
                    metavar="GUID=FILE",
                    help="A secret, under a GUID or a name of libvirt's (luks-key).  May be given again.",
                ),
                *_packet_options("Write"),
            ],
        )
    )
    group.add_command(
        click.Command(
            "inject",
            callback=_inject,
            help="Hand sealed secrets to a paused guest at its QMP server.",
            short_help="Inject sealed secrets.",
            params=[
                _qmp_option(required=True),
                *_packet_options("Read"),
                click.Option(["--gpa"], metavar="NUMBER", help="Where to.  [default: the firmware's area for secrets]"),
                click.Option(["--cont"], is_flag=True, help="Let the guest run then."),
            ],
        )
    )
    return group


def _qmp_option(required: bool) -> click.Option:
    return click.Option(["--qmp"], required=required, metavar="unix:PATH|tcp:HOST:PORT", help="The guest's QMP server.")


def _packet_options(verb: str) -> list[click.Parameter]:
    return [
        click.Option(
            ["--secret-header"], required=True, metavar="FILE", help=f"{verb} the packet's header, in base64."
        ),
        click.Option(["--secret-payload"], required=True, metavar="FILE", help=f"{verb} the payload, in base64."),
    ]


def _session(pdh: str, policy: str, name: str, **values: Any) -> None:
    from sevplug.owner.session import make_owner_session, read_pdh, session_files
    from sevplug.sevapi.policy import Policy

    keys = read_keys(values)
    wanted = Policy(parse_number("POLICY", policy))
    data = read_document("PDH", pdh)
    with plain_errors():
        files = session_files(make_owner_session(read_pdh(data), wanted, keys), name)
    write_documents({Path(path): Output(file.data, file.secret) for path, file in files.items()})
    for path in files:
        click.echo(path)


def _expect(mnonce: str | None, form: str, **values: Any) -> None:
    from base64 import b64encode

    from sevplug.sevapi.measurement import measure
    from sevplug.sevapi.version import ApiVersion

    wanted = read_wanted(values)
    api, keys = read_api(values), read_keys(values, tik_alone=True)
    told = {"--tik": keys, "--api-major": api, "--mnonce": mnonce}
    missing = [option for option, value in told.items() if value is None]
    if missing and len(missing) < len(told):
        raise ConfigError(f"{', '.join(missing)}: expected, a launch measurement needs key, version and nonce")
    expectation = wanted.expectation(api or ApiVersion(0, 0, 0))
    digest = expectation.digest
    click.echo(f"launch digest       {digest.hex() if form == 'hex' else b64encode(digest).decode()}")
    if keys is not None and api is not None and mnonce is not None:
        measurement = measure(keys.tik, api, wanted.policy, digest, _nonce(mnonce))
        click.echo(f"launch measurement  {measurement.to_base64()}")


def _verify(measurement: str | None, qmp: str | None, **values: Any) -> None:
    from sevplug.owner.errors import OwnerError
    from sevplug.owner.expect import check_reported, verify_measurement
    from sevplug.owner.qmp import QmpClient

    if (measurement is None) == (qmp is None):
        raise ConfigError("--measurement, --qmp: expected one of them")
    keys = read_keys(values, tik_alone=True)
    if keys is None:
        raise ConfigError("--tik: expected it, or --tk")
    wanted, api = read_wanted(values), read_api(values)
    if qmp is not None:
        with plain_errors(), QmpClient(qmp) as client:
            reported = client.launch()
        # Without an own idea of the version the host's is as good: the measurement covers it.
        expectation, given = wanted.expectation(api or reported.api), reported.measurement
    else:
        reported = None
        if api is None:
            raise ConfigError("--api-major, --api-minor, --build-id: expected with --measurement")
        expectation, given = wanted.expectation(api), read_measurement(measurement or "")
    try:
        if reported is not None:
            check_reported(expectation, reported.policy, reported.api)
        verify_measurement(expectation, keys.tik, given)
    except OwnerError as error:
        raise SevplugError(f"not verified: {error}") from None
    click.echo(f"verified: {expectation}")
    click.echo(f"launch measurement  {given.to_base64()}")


def _seal(
    measurement: str | None, secret: tuple[str, ...], secret_header: str, secret_payload: str, **values: Any
) -> None:
    from sevplug.owner.seal import read_secrets, seal_secrets

    if measurement is None:
        raise ConfigError("--measurement: expected it, a secret is sealed for one launch")
    keys = read_keys(values)
    if keys is None:
        raise ConfigError("--tik, --tek: expected both of them, or --tk")
    with plain_errors():
        packet = seal_secrets(read_secrets(secret), keys, read_measurement(measurement))
    write_documents(
        {
            Path(secret_header): Output(packet.header_base64.encode("ascii")),
            Path(secret_payload): Output(packet.payload_base64.encode("ascii")),
        }
    )


def _inject(qmp: str, secret_header: str, secret_payload: str, gpa: str | None, cont: bool) -> None:
    from sevplug.owner.qmp import QmpClient
    from sevplug.sevapi.encodings import decode_base64, raw_or_base64
    from sevplug.sevapi.packet import HEADER_SIZE, SecretPacket

    address = None if gpa is None else parse_number("--gpa", gpa, 64)
    header = read_document("--secret-header", secret_header)
    payload = read_document("--secret-payload", secret_payload)
    with plain_errors():
        header = raw_or_base64(header, HEADER_SIZE, f"--secret-header {secret_header}")
        packet = SecretPacket(header, decode_base64(payload) or payload)
        with QmpClient(qmp) as client:
            client.inject(packet, address)
            if cont:
                client.execute("cont")
    click.echo(f"injected {len(packet.payload)} bytes{' and let the guest run' if cont else ''}")


def _nonce(text: str) -> bytes:
    from sevplug.sevapi.encodings import decode_base64
    from sevplug.sevapi.measurement import MNONCE_SIZE

    try:
        nonce: bytes | None = bytes.fromhex(text)
    except ValueError:
        nonce = decode_base64(text)
    if nonce is None or len(nonce) != MNONCE_SIZE:
        raise ConfigError(f"--mnonce: expected {MNONCE_SIZE} bytes in base64 or hexadecimal")
    return nonce
