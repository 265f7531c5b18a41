"""A file that appears whole, or not at all: whatever ends the process, nothing half written is under its name."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator


@contextlib.contextmanager
def whole_file(path: str) -> Iterator[int]:
    """A descriptor to write to; what was written is under ``path`` when the block has ended without an exception.

    It is on the disk then (fsync), for its owner alone (0600), and in place of a file that was there.  Where the file
    system can, it has no name before, so that even SIGKILL leaves nothing.  OSError as the system gives it.
    """
    target = os.path.realpath(path)
    folder, name = os.path.split(target)
    if os.path.isdir(target) or not name:
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    try:
        handle, unfinished = os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600), None
    except OSError:
        handle, unfinished = tempfile.mkstemp(prefix=f".{name[:100]}.", dir=folder)
    try:
        yield handle
        os.fsync(handle)
        if unfinished is not None or not _named(handle, target):
            unfinished = unfinished or _give_name(handle, folder, name)
            os.replace(unfinished, target)
            unfinished = None
        _sync_folder(folder)
    finally:
        os.close(handle)
        if unfinished is not None:
            with contextlib.suppress(OSError):
                os.unlink(unfinished)


def _named(handle: int, path: str) -> bool:
    """Give the nameless file a name; False when that is taken."""
    try:
        # With a folder's descriptor, which the absolute path makes no use of, Python calls linkat, and the link is
        # followed (open(2), O_TMPFILE).
        os.link(f"/proc/self/fd/{handle}", path, src_dir_fd=handle, follow_symlinks=True)
    except FileExistsError:
        return False
    return True


def _give_name(handle: int, folder: str, name: str) -> str:
    """A file has to have a name before it can take another's place."""
    for number in range(100):
        path = os.path.join(folder, f".{name[:100]}.{os.getpid()}.{number}")
        if _named(handle, path):
            return path
    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))


def _sync_folder(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
