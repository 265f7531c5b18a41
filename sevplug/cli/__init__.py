"""The ``sevplug`` command.  A file a command; plug-ins add options and commands of their own."""

from __future__ import annotations

import sys


def main() -> None:
    """The console script: run the command line of this process and exit with its status."""
    from sevplug.cli import collector

    collector.put_off()
    from sevplug.cli.app import run_app

    sys.exit(run_app(sys.argv[1:]))
