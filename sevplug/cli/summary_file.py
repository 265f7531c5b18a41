"""The file of ``--summary`` and of other reports on a run: written whole or not at all."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sevplug.cli.documents import umask
from sevplug.core.errors import ConfigError


class SummaryFile:
    """A place for a document, reserved before a run so that the run is not in vain.

    A regular file is replaced by renaming a complete one over it; anything else (a terminal, a pipe) is written to.
    Use it as a context manager: what was reserved and not written disappears.
    """

    def __init__(self, path: str, option: str = "--summary") -> None:
        """`ConfigError`, which names ``option``, when nothing can be written at ``path``."""
        self._shown = f"{option} {path}"
        self._target = Path(path).resolve()
        self._reserved: Path | None = None
        try:
            if self._target.exists() and not self._target.is_file():
                with self._target.open("w"):
                    return
            descriptor, name = tempfile.mkstemp(prefix=f".{self._target.name}.", dir=self._target.parent)
            os.close(descriptor)
            self._reserved = Path(name)
        except OSError as error:
            raise self._refused(error) from None

    def write(self, document: Mapping[str, Any]) -> None:
        """Write ``document`` as JSON; errors as in `write_text`."""
        self.write_text(json.dumps(document, indent=2) + "\n")

    def write_text(self, text: str) -> None:
        """Write ``text`` (as UTF-8); `ConfigError` when that fails (a full disk), the old content is kept then."""
        try:
            if self._reserved is None:
                self._target.write_text(text, encoding="utf-8")
                return
            self._reserved.write_text(text, encoding="utf-8")
            self._reserved.chmod(0o666 & ~umask())
            self._reserved.replace(self._target)
            self._reserved = None
        except OSError as error:
            raise self._refused(error) from None

    def __enter__(self) -> SummaryFile:
        return self

    def __exit__(self, *_exception: object) -> None:
        if self._reserved is not None:
            self._reserved.unlink(missing_ok=True)

    def _refused(self, error: OSError) -> ConfigError:
        return ConfigError(f"{self._shown}: {error.strerror or error}, expected a writable file")
