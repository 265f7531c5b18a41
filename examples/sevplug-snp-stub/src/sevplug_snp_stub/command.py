"""``sevplug -P snp-stub snp-measure``: the launch digest of images, without a machine."""

from __future__ import annotations

import click

from sevplug.core.config import BootImages, Image
from sevplug.core.cpumodel import find_model
from sevplug.core.errors import ConfigError
from sevplug.sevapi.errors import SevApiError
from sevplug_snp_stub.features import features_option, parse_features
from sevplug_snp_stub.pages import launch_digest


def command() -> click.Command:
    """A fresh ``snp-measure`` command."""
    return click.Command(
        "snp-measure",
        callback=_measure,
        help="Print the launch digest of an SNP guest with one vCPU, in hex.",
        params=[
            click.Option(["--firmware"], required=True, metavar="FILE", help="Firmware, as it is launched."),
            click.Option(["--kernel"], metavar="FILE", help="Kernel whose hash the firmware checks."),
            click.Option(["--initrd"], metavar="FILE"),
            click.Option(["--append"], metavar="TEXT", help="The kernel's command line."),
            click.Option(["--cpu"], default="EPYC-Milan", show_default=True, metavar="MODEL"),
            features_option(),
        ],
    )


def _measure(
    firmware: str, kernel: str | None, initrd: str | None, append: str | None, cpu: str, snp_features: str
) -> None:
    def image(option: str, path: str | None) -> Image | None:
        return None if path is None else Image.load(path, option)

    boot = BootImages(
        firmware=image("--firmware", firmware),
        kernel=image("--kernel", kernel),
        initrd=image("--initrd", initrd),
        cmdline=append,
    )
    try:
        digest = launch_digest(boot, find_model(cpu).signature, parse_features(snp_features))
    except SevApiError as error:
        raise ConfigError(f"--firmware {firmware}: {error}") from None
    click.echo(digest.hex())
