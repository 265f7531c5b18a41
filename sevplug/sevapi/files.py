"""Reading small files that hold a key or a secret, with errors that name the file and the field."""

from __future__ import annotations

import os
from pathlib import Path

from sevplug.sevapi.errors import SevApiError


def read_at_most(path: str | os.PathLike[str], field: str, limit: int) -> bytes:
    """The content of the file at `path`, but never more than `limit` + 1 bytes of it.

    A result longer than `limit` says that the file is too long; no more is read, so that an endless file does
    no harm. Raises SevApiError, one line with `field` and the path, when the file can't be read.
    """
    try:
        with Path(path).open("rb") as file:
            return file.read(limit + 1)
    except OSError as error:
        raise SevApiError(f"{field}: {os.fspath(path)}: {error.strerror}") from error
    except ValueError as error:
        raise SevApiError(f"{field}: {os.fspath(path)!r}: not a file name") from error
