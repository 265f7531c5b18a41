"""The error of a platform's folder."""

from __future__ import annotations


class PlatformError(ValueError):
    """Why a platform's folder cannot be used: one line that names it, without keys."""
