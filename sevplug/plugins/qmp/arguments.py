"""What a command takes, as a table, and the check of what a client sent against it.

Error texts and the order of checks are those of QEMU's ``qapi/qobject-input-visitor.c``: members in the order of the
schema, then whatever is left over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from sevplug.plugins.qmp.errors import QmpError
from sevplug.plugins.qmp.qdict import ordered

STRING = "string"
INTEGER = "integer"  # 64 bits, signed
UINT64 = "uint64"  # a negative number stands for its two's complement
BOOLEAN = "boolean"
ENUM = "enum"  # a string out of ``choices``
ENUM_LIST = "array"  # of strings out of ``choices``

_INT64 = range(-(1 << 63), 1 << 63)


@attrs.frozen
class Argument:
    """One argument: its name, its type (a constant of this module), and whether it may be left out."""

    name: str
    type: str
    optional: bool = False
    choices: Sequence[str] = ()


def check(expected: Sequence[Argument], sent: Mapping[str, Any]) -> dict[str, Any]:
    """``sent`` as the handler gets it: checked, without what is not expected.  `QmpError` with QEMU's text."""
    taken = {}
    for argument in expected:
        if argument.name in sent:
            taken[argument.name] = _checked(argument, sent[argument.name])
        elif not argument.optional:
            raise QmpError(f"Parameter '{argument.name}' is missing")
    for name, _value in ordered(sent):
        if name not in taken:
            raise QmpError(f"Parameter '{name}' is unexpected")
    return taken


def _checked(argument: Argument, value: Any) -> Any:
    match argument.type:
        case "string":
            return _string(argument.name, value)
        case "integer":
            if not _is_integer(value) or value not in _INT64:
                raise _wrong_type(argument.name, INTEGER)
            return value
        case "uint64":
            if not _is_integer(value):
                raise QmpError(f"Parameter '{argument.name}' expects uint64")
            return value % (1 << 64)
        case "boolean":
            if not isinstance(value, bool):
                raise _wrong_type(argument.name, BOOLEAN)
            return value
        case "enum":
            return _choice(argument.name, _string(argument.name, value), argument.choices)
        case "array":
            if not isinstance(value, list):
                raise _wrong_type(argument.name, ENUM_LIST)
            # An element has no name of its own, which QEMU words as 'null'.
            return [
                _choice("null", _string(f"{argument.name}[{index}]", element), argument.choices)
                for index, element in enumerate(value)
            ]
    raise ValueError(f"argument {argument.name!r}: unknown type {argument.type!r}")


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _string(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise _wrong_type(name, STRING)
    return value


def _choice(name: str, value: str, choices: Sequence[str]) -> str:
    if value not in choices:
        raise QmpError(f"Parameter '{name}' does not accept value '{value}'")
    return value


def _wrong_type(name: str, expected: str) -> QmpError:
    return QmpError(f"Invalid parameter type for '{name}', expected: {expected}")
