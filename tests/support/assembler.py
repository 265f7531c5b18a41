"""Small guests written in assembly, inside the test that runs them.

GNU as and ld (Debian package binutils) make a flat image of 64 KiB that ends at 4 GiB; it starts at the reset vector in
real mode, where the first line of the source is reached by a jump.
"""

from __future__ import annotations

import functools
import shutil
import subprocess
import tempfile
from pathlib import Path

from parts import missing

IMAGE_SIZE = 0x10000
BASE = 0x1_0000_0000 - IMAGE_SIZE

_FRAME = """
    .code16
    .text
    .globl _start
_start:
%s
    .org 0xfff0
reset_vector:
    .code16
    .byte 0xe9
    .word _start - (. + 2)
    .org 0x10000
"""


@functools.cache
def assemble(source: str, *, frame: bool = True) -> bytes:
    """The 64 KiB image of ``source`` (GNU as, Intel syntax); skips where binutils is missing."""
    if not (shutil.which("as") and shutil.which("ld")):
        missing("GNU as and ld are missing: install the Debian package binutils")
    text = ".intel_syntax noprefix\n" + (_FRAME % source if frame else source)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        (path / "guest.s").write_text(text)
        for command in (
            ["as", "--64", "-o", "guest.o", "guest.s"],
            ["ld", "-m", "elf_x86_64", "--oformat", "binary", "-Ttext", hex(BASE), "-o", "guest.bin", "guest.o"],
        ):
            done = subprocess.run(command, cwd=path, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
        return (path / "guest.bin").read_bytes()
