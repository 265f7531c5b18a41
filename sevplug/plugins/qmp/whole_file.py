"""Files for a client that appear whole or not at all, and QEMU's words where they cannot."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from typing import BinaryIO

from sevplug.core.whole_file import whole_file as whole
from sevplug.plugins.qmp.errors import QmpError


@contextlib.contextmanager
def whole_file(path: str, failure: str) -> Iterator[BinaryIO]:
    """A file that replaces ``path`` when the block ends without an exception; guest memory is for its owner (0600).

    What is no regular file (a pipe, a terminal) is written to directly.  `QmpError` in QEMU's words when ``path``
    cannot be opened, and with ``failure`` and the system's reason when writing fails.
    """
    try:
        with contextlib.ExitStack() as stack:
            try:
                opened = stack.enter_context(_opened(path, stack))
            except (OSError, ValueError) as error:
                reason = (isinstance(error, OSError) and error.strerror) or "Invalid argument"
                raise QmpError(f"Could not open '{path}': {reason}") from None
            yield opened
    except OSError as error:
        raise QmpError(f"{failure}: {error.strerror or error}") from None


def _opened(path: str, stack: contextlib.ExitStack) -> BinaryIO:
    if not path:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    target = os.path.realpath(path)
    if _is_special(target):
        return open(target, "wb")
    return os.fdopen(stack.enter_context(whole(target)), "wb", closefd=False)


def _is_special(path: str) -> bool:
    """Whether there is something that is no regular file."""
    try:
        return not stat.S_ISREG(os.stat(path).st_mode)
    except FileNotFoundError:
        return False
