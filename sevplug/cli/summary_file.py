"""The file of ``--summary``: written whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sevplug.core.reserved_file import ReservedFile


class SummaryFile(ReservedFile):
    """A place for a JSON document, reserved before a run so that the run is not in vain."""

    def __init__(self, path: str) -> None:
        """`ConfigError` when nothing can be written at ``path``."""
        super().__init__("--summary", path)

    def write(self, document: Mapping[str, Any]) -> None:
        """Write ``document``; `ConfigError` when that fails, the old content is kept then."""
        import json  # only for those who want a summary

        self.write_text(json.dumps(document, indent=2) + "\n")

    def __enter__(self) -> SummaryFile:
        return self
