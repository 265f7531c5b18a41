"""Files for a client that appear whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import tempfile
from collections.abc import Iterator
from typing import BinaryIO

from sevplug.plugins.qmp.errors import QmpError


@contextlib.contextmanager
def whole_file(path: str, failure: str) -> Iterator[BinaryIO]:
    """A file that replaces ``path`` when the block ends without an exception; guest memory is for its owner (0600).

    What is no regular file (a pipe, a terminal) is written to directly.  `QmpError` in QEMU's words when ``path``
    cannot be opened, and with ``failure`` and the system's reason when writing fails.
    """
    try:
        if not path:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        target = os.path.realpath(path)
        mode = _mode(target)
        if mode is not None and not stat.S_ISREG(mode):
            opened: BinaryIO = open(target, "wb")  # noqa: SIM115 (closed below, whatever happens)
            unfinished = None
        else:
            folder, name = os.path.split(target)
            handle, unfinished = tempfile.mkstemp(prefix=f".{name[:100]}.", dir=folder)
            opened = os.fdopen(handle, "wb")
    except (OSError, ValueError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or "Invalid argument"
        raise QmpError(f"Could not open '{path}': {reason}") from None
    try:
        try:
            with opened:
                yield opened
            if unfinished is not None:
                os.replace(unfinished, target)
                unfinished = None
        finally:
            if unfinished is not None:
                os.unlink(unfinished)
    except OSError as error:
        raise QmpError(f"{failure}: {error.strerror or error}") from None


def _mode(path: str) -> int | None:
    """The file's mode, or None when there is no such file."""
    try:
        return os.stat(path).st_mode
    except FileNotFoundError:
        return None
