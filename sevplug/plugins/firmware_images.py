"""What a firmware image says about where launch data goes; parsed once an image."""

from __future__ import annotations

from functools import lru_cache

from sevplug.core.config import Image
from sevplug.sevapi.guid_table import GuidTable, parse_guid_table


@lru_cache(maxsize=4)
def _parse(data: bytes) -> GuidTable:
    return parse_guid_table(data)


def guid_table(image: Image) -> GuidTable:
    """The image's GUID table, empty when it has none; `sevplug.sevapi.errors.FormatError` when it lies."""
    return _parse(image.data)
