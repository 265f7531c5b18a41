"""A file that is written when a run is over, whole or not at all, and whose place is reserved before it starts."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

from sevplug.core.errors import ConfigError


class ReservedFile:
    """A place for a text, reserved so that the run before it is not in vain.

    A regular file is replaced by renaming a complete one over it; anything else (a terminal, a pipe) is written to.
    Use it as a context manager, or call `close`: what was reserved and not written disappears.
    """

    def __init__(self, option: str, path: str) -> None:
        """``option`` names the option in messages.  `ConfigError` when nothing can be written at ``path``."""
        self._shown = f"{option} {path}"
        self._reserved: Path | None = None
        try:
            self._target = Path(path).resolve()
            if self._target.exists():
                if not self._target.is_file():
                    with self._target.open("w"):
                        return
                if not os.access(self._target, os.W_OK):
                    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            # A name may have 255 bytes, and some of them are the suffix's.
            descriptor, name = tempfile.mkstemp(prefix=f".{self._target.name[:50]}.", dir=self._target.parent)
            os.close(descriptor)
            self._reserved = Path(name)
        except OSError as error:
            raise self._refused(error) from None
        except ValueError:
            raise ConfigError(f"{option} {path!r}: not a file name") from None

    def write_text(self, text: str) -> None:
        """Write ``text`` as UTF-8; `ConfigError` when that fails (a full disk), the old content is kept then."""
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

    def close(self) -> None:
        """Give back the place where nothing was written; harmless when called again."""
        reserved, self._reserved = self._reserved, None
        if reserved is not None:
            reserved.unlink(missing_ok=True)

    def __enter__(self) -> ReservedFile:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def _refused(self, error: OSError) -> ConfigError:
        return ConfigError(f"{self._shown}: {error.strerror or error}, expected a writable file")


def umask() -> int:
    """The process's mask for the modes of new files."""
    current = os.umask(0)
    os.umask(current)
    return current
