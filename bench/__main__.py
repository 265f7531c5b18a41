"""``python bench``: sevplug and QEMU's TCG side by side, as a table.  It fails only when a guest does not boot."""

from __future__ import annotations

import json
import os
import platform
import sys
from importlib import metadata
from pathlib import Path

import click

# Images are looked for as the tests do it.
sys.path.append(str(Path(__file__).resolve().parent.parent / "tests" / "support"))

from peers import Missing, qemu_version
from report import document, markdown
from rows import comparisons
from sampling import PERIOD
from timing import NotBooted


@click.command()
@click.option("-n", "--rounds", type=click.IntRange(min=1), default=3, show_default=True, help="Runs of each peer.")
@click.option("--only", metavar="TEXT", default="", help="Only the rows with TEXT in their name.")
@click.option("--json", "path", type=click.Path(dir_okay=False), help="Write the figures there too.")
def main(rounds: int, only: str, path: str | None) -> None:
    """Measure sevplug beside QEMU's TCG and print a Markdown table."""
    try:
        wanted = [comparison for comparison in comparisons() if only in comparison.name]
        for comparison in wanted:
            comparison.commands()
        where = _where()
    except Missing as missing:
        raise click.ClickException(str(missing)) from None
    rows = []
    for comparison in wanted:
        click.echo(f"measuring: {comparison.name}", err=True)
        try:
            rows.append(comparison.run(rounds))
        except NotBooted as failure:
            raise click.ClickException(f"{comparison.name}: {failure}") from None
    click.echo(markdown(rows, where, PERIOD))
    if path is not None:
        Path(path).write_text(json.dumps(document(rows, where, rounds), indent=2) + "\n")


def _where() -> dict[str, str]:
    """What it is measured on."""
    return {
        "cores": str(os.cpu_count()),
        "Python": platform.python_version(),
        "unicorn": metadata.version("unicorn"),
        "QEMU": qemu_version(),
        "load average before": f"{os.getloadavg()[0]:.1f}",
    }


main()
