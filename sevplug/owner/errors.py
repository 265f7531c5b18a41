"""The error of the owner's side."""

from __future__ import annotations


class OwnerError(ValueError):
    """Why the owner does not go on: one line, without keys and secrets."""
