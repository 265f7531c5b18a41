"""What may be shown of an event, a document or an exception: plain values, and never a key or a secret."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from sevplug.core.errors import SevplugError

HIDDEN: Final = "<hidden>"
_HIDDEN_NAMES = frozenset({"tik", "tek", "key", "keys", "secret", "secrets", "payload", "passphrase", "password"})
# Words in the names of options, which anyone may add.
_HIDDEN_WORDS = _HIDDEN_NAMES | {"token", "credential", "credentials"}


def plain_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """``fields`` as JSON values; a launch's ``context`` becomes what may be known of it, never its keys."""
    found: dict[str, Any] = {}
    for name, value in fields.items():
        if name == "context":
            found.update(_launch_fields(value))
        else:
            found[name] = _plain(value)
    return found


def _plain(value: object) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    # Bytes and objects may hold anything, also what their repr should not show.
    return f"<{type(value).__name__}>"


def _launch_fields(context: object) -> dict[str, Any]:
    """The fields of a launch context that are known to be harmless, where it has them."""
    found: dict[str, Any] = {}
    policy = getattr(context, "policy", None)
    if policy is not None:
        found["policy"] = int(policy)
    api = getattr(context, "api", None)
    for name, attribute in (("api_major", "major"), ("api_minor", "minor"), ("build_id", "build")):
        if hasattr(api, attribute):
            found[name] = int(getattr(api, attribute))
    handle = getattr(context, "handle", None)
    if isinstance(handle, int):
        found["handle"] = handle
    return found


def redact(fields: Mapping[str, Any]) -> dict[str, Any]:
    """``fields``, with every value hidden, at any depth, whose name says that it is a key or a secret."""
    return {name: _hide(name, value) for name, value in fields.items()}


def _hide(name: str, value: Any) -> Any:
    if name.lower() in _HIDDEN_NAMES:
        return HIDDEN
    if isinstance(value, Mapping):
        return {inner: _hide(str(inner), content) for inner, content in value.items()}
    if isinstance(value, list | tuple):
        return [_hide("", content) for content in value]
    return value


def is_hidden_option(name: str) -> bool:
    """Whether a word in the name of an option (``api-key``, ``luks_passphrase``) says that its value is not for all."""
    return not _HIDDEN_WORDS.isdisjoint(re.split(r"[^a-z]+", name.lower()))


def describe(error: BaseException) -> str:
    """``error`` in one line; what sevplug raises on purpose speaks for itself, others are named."""
    text = " ".join(str(error).split())
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    return text if isinstance(error, SevplugError) else f"{type(error).__name__}: {text}".removesuffix(": ")
