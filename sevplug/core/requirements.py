"""What a distribution says it requires of another, held against what is there (PyPA's specification of versions).

An installer has checked it already, but it can be told not to, and what is installed changes later.
"""

from __future__ import annotations

from collections.abc import Iterable


def unmet(requirements: Iterable[str], name: str, version: str) -> str | None:
    """The versions of ``name`` that the first of ``requirements`` (Requires-Dist) wants which ``version`` is not.

    None when each is met.  Extras and what no installer could read do not count.
    """
    from packaging.requirements import InvalidRequirement, Requirement
    from packaging.utils import canonicalize_name

    for text in requirements:
        try:
            wanted = Requirement(text)
        except InvalidRequirement:
            continue
        if canonicalize_name(wanted.name) != canonicalize_name(name):
            continue
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        if not wanted.specifier.contains(version, prereleases=True):
            return str(wanted.specifier)
    return None
