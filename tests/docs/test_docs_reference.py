"""The reference pages list what the code has, and nothing else."""

from __future__ import annotations

import pkgutil
import re

from images import ROOT

import sevplug
from sevplug import Machine, MachineConfig
from sevplug.boot import embedded
from sevplug.core.result import ORDERLY, RESULTS, TIMEOUT
from sevplug.plugins.qmp import commands, debug_commands, human, memory_commands, sev_commands, snapshot_commands

REFERENCE = ROOT / "docs" / "reference"
# Of the session with a client, not of the machine.
OF_A_SESSION = {"qmp_capabilities", "query-commands"}
# No API but for the modules that a page names.
INTERNAL = {"board", "cli", "matrix", "plugins"}


def test_every_result_has_its_exit_status() -> None:
    rows = re.findall(r"^\| ([0-9]+) \| `([a-z]+)` \|", (REFERENCE / "results.md").read_text(), re.M)
    assert {result: int(status) for status, result in rows} == {
        result: 0 if result in ORDERLY else 3 if result == TIMEOUT else 1 for result in RESULTS
    }


def test_every_key_of_the_summary_is_explained() -> None:
    with Machine(MachineConfig(boot=embedded.load())) as machine:
        document = machine.summary(machine.run(timeout=20), ram_digest=True)
    section = (REFERENCE / "results.md").read_text().split("## The summary")[1]
    rows = [line.split("|") for line in section.splitlines() if line.startswith("| `")]
    assert {key for row in rows for key in re.findall(r"`(\w+)`", row[1])} == set(document)
    for key, value in document.items():
        explained = {word for row in rows if f"`{key}`" in row[1] for word in re.findall(r"`(\w+)`", row[3])}
        assert not isinstance(value, dict) or set(value) <= explained, key


def test_every_qmp_command_has_a_section() -> None:
    text = (REFERENCE / "qmp.md").read_text()
    modules = (commands, sev_commands, memory_commands, debug_commands, snapshot_commands, human)
    known = {command.name: command for module in modules for command in module.COMMANDS}
    assert set(re.findall(r"^### (\S+)$", text, re.M)) == known.keys() | OF_A_SESSION
    for name, command in known.items():
        section = text.split(f"### {name}\n")[1].split("\n#")[0]
        for argument in command.arguments:
            assert f"`{argument.name}`" in section, (name, argument.name)


def test_every_public_package_is_on_a_page() -> None:
    packages = {info.name for info in pkgutil.iter_modules(sevplug.__path__) if info.ispkg}
    pages = "".join(path.read_text() for path in (REFERENCE / "api").glob("*.md"))
    assert set(re.findall(r"\{\{ modules sevplug\.(\w+) \}\}", pages)) == packages - INTERNAL
