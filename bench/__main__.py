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
from rows import measured
from sampling import PERIOD
from timing import NotBooted


@click.command()
@click.option("-n", "--rounds", type=click.IntRange(min=1), default=3, show_default=True, help="Runs of each peer.")
@click.option("--only", metavar="TEXT", default="", help="Only the rows with TEXT in their name.")
@click.option(
    "--write",
    "folder",
    type=click.Path(file_okay=False, exists=True),
    help="Write figures.md and figures.json there too.",
)
def main(rounds: int, only: str, folder: str | None) -> None:
    """Measure sevplug beside its peers, QEMU's TCG above all, and print a Markdown table."""
    try:
        wanted = [row for row in measured() if only in row.name]
        for row in wanted:
            row.check()
        where = _where()
    except Missing as missing:
        raise click.ClickException(str(missing)) from None
    rows = []
    for row in wanted:
        click.echo(f"measuring: {row.name}", err=True)
        try:
            rows.append(row.run(rounds))
        except NotBooted as failure:
            raise click.ClickException(f"{row.name}: {failure}") from None
    table, figures = markdown(rows, where, PERIOD), json.dumps(document(rows, where, rounds), indent=2) + "\n"
    click.echo(table)
    if folder is not None:
        Path(folder, "figures.md").write_text(table)
        Path(folder, "figures.json").write_text(figures)


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
