"""Matrices whose guests end in every way, and processes that stand in for `sevplug run` where no guest is needed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from assembler import assemble
from distributions import install

from sevplug.matrix import process
from sevplug.matrix.values import Cell

# What only a plug-in can do to the process of its guest.
PLUGINS = {
    "segfaults": "os.kill(os.getpid(), signal.SIGSEGV)",
    "kills-its-parent": "os.kill(os.getppid(), signal.SIGKILL)",
    "raises": "raise SystemError('in the middle')",
}
PLUGIN = """
import os, signal
from sevplug import hookimpl

@hookimpl
def machine_close(machine):
    {body}
"""
# The last that Linux prints, in red.
PANICS = r"""
    mov dx, 0x3f8; mov si, offset text - _start; mov cx, offset end - text
    9: mov al, cs:[si]; out dx, al; inc si; loop 9b
    1: pause; jmp 1b
    text: .ascii "\033[31m---[ end Kernel panic - not syncing: no init ]---\r\n"
    end:
"""
LOOPS = "1: in al, 0x71; jmp 1b"


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images, and an installed distribution with a plug-in for each of `PLUGINS`."""
    home = tmp_path_factory.mktemp("matrix")
    (home / "panics.bin").write_bytes(assemble(PANICS))
    (home / "loops.bin").write_bytes(assemble(LOOPS))
    modules = {f"{_module(name)}.py": PLUGIN.format(body=body) for name, body in PLUGINS.items()}
    install(home, "bad-ends", modules, {name: _module(name) for name in PLUGINS})
    return home


def _module(plugin: str) -> str:
    return f"{plugin.replace('-', '_')}_plugin"


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes cells run a script instead of a guest; ``sys.argv`` is the summary's path, then the cell's words."""

    def use(script: str) -> None:
        def command(cell: Cell, summary: str) -> list[str]:
            return [sys.executable, "-S", "-c", script, summary, *cell.words]

        monkeypatch.setattr(process, "command_line", command)

    return use
