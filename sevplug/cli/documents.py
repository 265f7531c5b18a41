"""Files that commands read and write: errors that name option and file, and outputs that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import attrs

from sevplug.core.config import Image
from sevplug.core.errors import ConfigError
from sevplug.core.reserved_file import umask
from sevplug.owner.errors import OwnerError
from sevplug.platform.errors import PlatformError
from sevplug.sevapi.errors import SevApiError

CERTIFICATES_LIMIT = 1 << 20


@attrs.frozen
class Output:
    """What shall be in a file, and whether it is for its owner's eyes alone (mode 0600)."""

    data: bytes = attrs.field(repr=False)
    private: bool = False


@contextlib.contextmanager
def plain_errors() -> Iterator[None]:
    """What the libraries refuse becomes a `ConfigError`: one line, exit status 2."""
    try:
        yield
    except (SevApiError, OwnerError, PlatformError) as error:
        raise ConfigError(str(error)) from None


def read_document(option: str, path: str, limit: int = CERTIFICATES_LIMIT) -> bytes:
    """A file's content, at most `limit` bytes; `ConfigError` names ``option`` and file."""
    return Image.load(path, option, limit=limit).data


def write_documents(outputs: Mapping[Path, Output]) -> None:
    """Write all files, replacing what is there, or none; `ConfigError` names the one that can't be written."""
    made: list[tuple[str, Path]] = []
    try:
        for path, output in outputs.items():
            with _named(path):
                descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
                made.append((name, path))
                with os.fdopen(descriptor, "wb") as file:
                    file.write(output.data)
                    file.flush()
                    os.fsync(file.fileno())
                if path.is_dir():
                    raise IsADirectoryError(21, "Is a directory")
                if not output.private:
                    os.chmod(name, 0o666 & ~umask())
        while made:
            name, path = made[-1]
            with _named(path):
                os.replace(name, path)
            made.pop()
    finally:
        for name, _ in made:
            with contextlib.suppress(OSError):
                os.unlink(name)


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}, expected a writable file") from None
    except ValueError:
        raise ConfigError(f"{str(path)!r}: not a file name") from None
