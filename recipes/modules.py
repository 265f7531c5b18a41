#!/usr/bin/env python3
"""modules.py FOLDER OUT NAME...: an archive of kernel modules and what they need, for the end of an initrd.

FOLDER is a kernel's lib/modules/RELEASE.  In the archive are /modules/*.ko and /modules/order, their names in the order
in which insmod takes them.  A NAME that is built into the kernel is left out.
"""

import lzma
import re
import sys
from pathlib import Path

from newc import archive, directory, file

folder, out, *wanted = Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:]
paths = {path.name.split(".")[0].replace("-", "_"): path for path in folder.rglob("*.ko*")}
order: dict[str, bytes] = {}


def load(name: str) -> None:
    """Add ``name`` behind what it needs; each module says so itself (section .modinfo)."""
    if name in order or name not in paths:
        return
    path = paths[name]
    data = lzma.decompress(path.read_bytes()) if path.suffix == ".xz" else path.read_bytes()
    found = re.search(rb"\0depends=([^\0]*)\0", data)
    for needed in found[1].decode().split(",") if found else ():
        load(needed.replace("-", "_"))
    order[name] = data


for each in wanted:
    load(each.replace("-", "_"))
if not order:
    sys.exit(f"{folder}: none of the modules {', '.join(wanted)} is here")
out.write_bytes(
    archive(
        (
            directory("modules"),
            file("modules/order", "".join(f"{name}.ko\n" for name in order).encode()),
            *(file(f"modules/{name}.ko", data) for name, data in order.items()),
        )
    )
)
