"""The option ``--snp-features``, which the machine and the command share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sevplug.core.errors import ConfigError

if TYPE_CHECKING:
    import click

DEFAULT = "0x1"


def features_option() -> click.Option:
    """A fresh ``--snp-features``."""
    import click  # only for those who come from the command line

    return click.Option(
        ["--snp-features"],
        default=DEFAULT,
        show_default=True,
        metavar="NUMBER",
        help="SEV_FEATURES of the vCPU, which are part of the launch digest.",
    )


def parse_features(text: str) -> int:
    """The number of ``--snp-features``, 64 bits; `ConfigError` for any other text."""
    try:
        number = int(text, 0)
    except ValueError:
        number = -1
    if not 0 <= number < 1 << 64:
        raise ConfigError(f"--snp-features {text!r}: expected a number of at most 64 bits, decimal or 0x...")
    return number
