"""What an owner's secret holds is taken out of all that a guest said, wherever it may have printed it."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from typing import Any

from sevplug.plugins.plain import HIDDEN
from sevplug.sevapi.errors import FormatError
from sevplug.sevapi.secret_table import parse_secret_table

# Shorter ones are part of too many words.
_SHORTEST = 4


def secrets_of(payload: bytes) -> list[bytes]:
    """The secrets in a payload that was placed in guest memory; the payload itself where it is no table of secrets."""
    try:
        return list(parse_secret_table(payload).values())
    except FormatError:
        return [payload.rstrip(b"\0")]


class Hider:
    """Replaces each of ``secrets``, as bytes, in hex and in base64, by `HIDDEN`."""

    def __init__(self, secrets: Iterable[bytes]) -> None:
        forms: set[bytes] = set()
        for secret in secrets:
            for form in (secret, secret.strip()):
                if len(form) >= _SHORTEST:
                    digits = form.hex()
                    encoded = base64.b64encode(form).rstrip(b"=")
                    forms |= {form, digits.encode(), digits.upper().encode(), encoded}
        # A longer one first: another may be a part of it.
        self._forms = sorted(forms, key=len, reverse=True)

    def bytes(self, data: bytes) -> bytes:
        """``data`` without them."""
        for form in self._forms:
            data = data.replace(form, HIDDEN.encode())
        return data

    def text(self, text: str) -> str:
        """``text`` without them."""
        if not self._forms:
            return text
        return self.bytes(text.encode(errors="surrogateescape")).decode(errors="surrogateescape")

    def value(self, value: Any) -> Any:
        """A plain value without them, at any depth."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {name: self.value(inner) for name, inner in value.items()}
        if isinstance(value, list):
            return [self.value(inner) for inner in value]
        return value
