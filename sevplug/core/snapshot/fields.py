"""Attributes of a device as plain data, named one by one: what is not named is not saved.

Plain data is None, bool, int, float, str, bytes, and lists and mappings (keys are str) of it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

State = Mapping[str, Any]


def save_fields(owner: object, names: Iterable[str]) -> dict[str, Any]:
    """The attributes ``names`` of ``owner``; a name that ends in ``?`` may also be None."""
    return {_key(name): _plain(getattr(owner, name.rstrip("?"))) for name in names}


def load_fields(owner: object, names: Iterable[str], state: State) -> None:
    """Put back what `save_fields` gave.

    KeyError, TypeError or ValueError for what cannot have come from there: a value has the type of the attribute's
    present one, a buffer its size, a mapping its keys.
    """
    for name in names:
        attribute = name.rstrip("?")
        value = state[_key(name)]
        if not (value is None and name.endswith("?")):
            value = _like(getattr(owner, attribute), value, optional=name.endswith("?"))
        setattr(owner, attribute, value)


def _key(name: str) -> str:
    return name.strip("_?")


def _plain(value: Any) -> Any:
    if isinstance(value, bytearray | bytes):
        return bytes(value)
    if isinstance(value, list | tuple | deque):
        return [_plain(element) for element in value]
    if isinstance(value, dict):
        return [[key, _plain(element)] for key, element in value.items()]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"a {type(value).__name__} is no plain data")


def _like(present: Any, value: Any, *, optional: bool = False) -> Any:
    """``value`` as an object of the kind that ``present`` is; buffers are filled in place."""
    if isinstance(present, bytearray):
        if len(_typed(value, bytes)) != len(present):
            raise ValueError(f"{len(value)} bytes, expected {len(present)}")
        present[:] = value
        return present
    if isinstance(present, deque):
        return deque(_element(element) for element in _typed(value, list))
    if isinstance(present, list):
        return [_element(element) for element in _typed(value, list)]
    if isinstance(present, dict):
        found = {_typed(key, int): _typed(element, int) for key, element in _typed(value, list)}
        if found.keys() != present.keys():
            raise ValueError("other keys than the attribute has")
        return found
    return _typed(value, int if optional and present is None else type(present))


def _element(value: Any) -> Any:
    return tuple(_typed(part, int) for part in value) if isinstance(value, list) else _typed(value, int, bool)


def _typed(value: Any, *kinds: type) -> Any:
    # Exactly: a bool is an int to isinstance.
    if type(value) not in kinds:
        raise TypeError(f"a {type(value).__name__}, expected {' or '.join(kind.__name__ for kind in kinds)}")
    return value
