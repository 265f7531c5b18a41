"""docs/reference/events.md names every event of the code, and no other."""

from __future__ import annotations

import re

from images import ROOT

from sevplug.board import serial
from sevplug.core import events
from sevplug.plugins.gdb.service import GDB_ATTACHED, GDB_DETACHED, GDB_LISTENING
from sevplug.plugins.logging import SUMMARY
from sevplug.plugins.phases import PHASE, PHASES
from sevplug.plugins.qmp.event_map import QMP_LISTENING, QMP_WAITING
from sevplug.plugins.words import ERROR


def test_every_event_is_documented_and_no_other() -> None:
    text = (ROOT / "docs" / "reference" / "events.md").read_text()
    table = "\n".join(line.split("|")[1] for line in text.splitlines() if line.startswith("| `"))
    documented = set(re.findall(r"`([a-z.-]+)`", table))
    defined = {value for name, value in vars(events).items() if name.isupper()}
    of_plugins = {
        GDB_ATTACHED,
        GDB_DETACHED,
        GDB_LISTENING,
        SUMMARY,
        ERROR,
        PHASE,
        QMP_LISTENING,
        QMP_WAITING,
        serial.LISTENING,
        serial.WAITING,
    }
    assert documented == defined | of_plugins | set(PHASES)


def test_the_readmes_files_exist() -> None:
    text = (ROOT / "README.md").read_text()
    for path in re.findall(r"\]\(([a-z./-]+)\)", text) + re.findall(r"`((?:scripts|sevplug)/[\w./-]+)`", text):
        assert (ROOT / path).exists(), path
