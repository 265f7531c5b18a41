#!/usr/bin/env python3
"""initrd.py BUSYBOX INIT OUT: an initrd that is a busybox and an /init; compressed when OUT ends in .gz."""

import gzip
import sys
from pathlib import Path

from newc import CONSOLE, archive, directory, link, program

busybox, init, out = map(Path, sys.argv[1:4])
data = archive(
    (
        *map(directory, ("bin", "dev", "proc", "sys")),
        CONSOLE,
        program("bin/busybox", busybox.read_bytes()),
        link("bin/sh", "busybox"),
        program("init", init.read_bytes()),
    )
)
out.write_bytes(gzip.compress(data, 9, mtime=0) if out.suffix == ".gz" else data)
