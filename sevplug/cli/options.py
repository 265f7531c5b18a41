"""QEMU's little languages (``a,b=c`` lists, sizes, objects) as pure parsers; nothing here opens a file.

Every error is a `ConfigError` of one line that names the option, the field and what was expected.  Sources: QEMU's
``util/keyval.c`` and ``util/qemu-option.c`` (lists, ``,,`` for a comma), ``util/cutils.c`` (sizes),
``qom/object_interfaces.c`` (objects), ``qapi/qobject-input-visitor.c`` and ``hw/core/machine.c`` (error texts).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import attrs

from sevplug.board.chardev import ends
from sevplug.core.config import ObjectSpec
from sevplug.core.errors import ConfigError

MIB = 1 << 20
GIB = 1 << 30
MEMORY_MIN = MIB
MEMORY_MAX = 64 * GIB
_PAGE = 4096
_SUFFIXES = {"b": 0, "k": 10, "m": 20, "g": 30, "t": 40, "p": 50, "e": 60}
_IDENTIFIER = re.compile(r"[A-Za-z][A-Za-z0-9._-]*")
_NUMBER = re.compile(r"[0-9]+(\.[0-9]+)?")

# Machine options that name the object which makes the guest a confidential one, the old spelling first.
REFERENCES = ("memory-encryption", "confidential-guest-support")
# Objects that do nothing unless one of REFERENCES names them (QEMU's, and the emulated one).
CONFIDENTIAL_TYPES = frozenset({"sev-emulated", "sev-guest", "sev-snp-guest"})


@attrs.frozen
class Field:
    """One element of a comma list: ``key=value``, or a bare word with ``value`` None."""

    key: str
    value: str | None


def split_list(text: str) -> list[Field]:
    """The elements of a comma list, in order.

    ``,,`` in a value stands for one comma.  A trailing comma ends the list, as in QEMU; an empty element elsewhere is
    kept as a Field with an empty key, for the caller to refuse.
    """
    fields = []
    for part in _split_commas(text):
        key, equals, value = part.partition("=")
        fields.append(Field(key, value if equals else None))
    return fields


def _split_commas(text: str) -> list[str]:
    parts: list[str] = []
    current: list[str] = []
    position = 0
    while position < len(text):
        if text.startswith(",,", position):
            current.append(",")
            position += 2
        elif text[position] == ",":
            parts.append("".join(current))
            current = []
            position += 1
        else:
            current.append(text[position])
            position += 1
    if current or not text:
        parts.append("".join(current))
    return parts


def key_values(option: str, text: str, implied: str | None = None) -> dict[str, str]:
    """``text`` as a mapping; the last value of a key wins.

    A bare first word is the value of ``implied`` where that is given.  `ConfigError` for any other bare word and for an
    empty key.
    """
    found: dict[str, str] = {}
    for index, field in enumerate(split_list(text)):
        if field.value is None and index == 0 and implied is not None and field.key:
            found[implied] = field.key
        elif not field.key:
            raise ConfigError(f"{option} {text}: element {index + 1} has no name, expected NAME=VALUE")
        elif field.value is None:
            raise ConfigError(f"{option} {text}: Expected '=' after parameter '{field.key}'")
        else:
            found[field.key] = field.value
    return found


def take_only(option: str, text: str, fields: Mapping[str, str], known: Iterable[str]) -> None:
    """`ConfigError` when ``fields`` has a key that is not in ``known``."""
    names = sorted(known)
    for key in fields:
        if key not in names:
            raise ConfigError(f"{option} {text}: {key!r} is not supported, expected {', '.join(names)}")


def parse_bool(option: str, field: str, value: str) -> bool:
    """QEMU's ``on``/``yes``/``true``/``y`` and their opposites; `ConfigError` for anything else."""
    if value in ("on", "yes", "true", "y"):
        return True
    if value in ("off", "no", "false", "n"):
        return False
    raise ConfigError(f"{option}: Parameter '{field}' expects 'on' or 'off', found {value!r}")


def parse_size(option: str, text: str, default_suffix: str = "b") -> int:
    """A size in bytes: a decimal number, fractions allowed, and one of b, k, M, G, T, P, E (powers of 1024).

    ``default_suffix`` counts when none is written.
    """
    suffix = text[-1:].lower()
    number = text[:-1] if suffix in _SUFFIXES else text
    shift = _SUFFIXES[suffix if suffix in _SUFFIXES else default_suffix]
    if not _NUMBER.fullmatch(number) or len(number) > 40:
        raise ConfigError(f"{option} {text}: expected a size, such as 256M (suffixes b, k, M, G, T, P, E)")
    whole, _, fraction = number.partition(".")
    scale: int = 10 ** len(fraction)
    size = (int(whole + fraction) << shift) // scale
    if size >= 1 << 64:
        raise ConfigError(f"{option} {text}: expected a size below 2^64")
    return size


def parse_memory(option: str, text: str) -> int:
    """The size of the guest's RAM in bytes, as in QEMU's ``-m``: in MiB unless a suffix says otherwise.

    Rounded up to whole pages.  `ConfigError` outside 1 MiB to 64 GiB.
    """
    size = parse_size(option, text, "m")
    if not MEMORY_MIN <= size <= MEMORY_MAX:
        raise ConfigError(f"{option} {text}: {size} bytes of memory, expected 1M to {MEMORY_MAX // GIB}G")
    return -(-size // _PAGE) * _PAGE


def parse_seconds(option: str, text: str) -> float:
    """A positive number of seconds."""
    try:
        if not _NUMBER.fullmatch(text) or len(text) > 20 or not float(text) > 0:
            raise ValueError
    except ValueError:
        raise ConfigError(f"{option} {text}: expected a number of seconds above 0") from None
    return float(text)


def parse_number(option: str, text: str, highest: int) -> int:
    """A number from 0 to ``highest``, in decimal or, behind 0x, in hexadecimal."""
    try:
        number = int(text, 0)
    except ValueError:
        number = -1
    if not 0 <= number <= highest:
        raise ConfigError(f"{option} {text}: expected a number from 0 to {highest:#x}")
    return number


def parse_serial(option: str, text: str) -> str:
    """What the serial port is connected to, as `sevplug.board.chardev.ends` spells it; ``none`` is ``null``."""
    if text == "none":
        return "null"
    ends.check(option, text)
    return text


def parse_output(option: str, text: str) -> str:
    """Where a port that only sends goes: ``stdio``, ``null`` (also spelt ``none``), or ``file:PATH``."""
    if text in ("null", "none"):
        return "null"
    if text == "stdio" or (text.startswith("file:") and text != "file:"):
        return text
    raise ConfigError(f"{option} {text}: not supported, expected stdio, null or file:PATH")


def parse_object(option: str, text: str) -> ObjectSpec:
    """``TYPE,id=ID,KEY=VALUE,…`` or QEMU's JSON form; property values stay text.

    Two values for one property are an error here, where QEMU takes the last: an object holds keys and a policy.
    """
    if text.startswith("{"):
        pairs = _json_properties(option, text)
    else:
        pairs = [(field.key, field.value) for field in split_list(text)]
        if pairs and pairs[0][0] and pairs[0][1] is None:
            pairs[0] = ("qom-type", pairs[0][0])
    shown = _object_name(option, pairs)
    properties: dict[str, str] = {}
    for index, (key, value) in enumerate(pairs):
        if not key:
            raise ConfigError(f"{shown}: element {index + 1} has no name, expected NAME=VALUE")
        if value is None:
            raise ConfigError(f"{shown}: Expected '=' after parameter '{key}'")
        if key in properties:
            raise ConfigError(f"{shown}: {key} is given twice")
        properties[key] = value
    kind = properties.pop("qom-type", "")
    identity = properties.pop("id", "")
    if not kind:
        raise ConfigError(f"{shown}: Parameter 'qom-type' is missing")
    if not identity:
        raise ConfigError(f"{shown}: Parameter 'id' is missing")
    if not _IDENTIFIER.fullmatch(identity):
        raise ConfigError(f"{shown}: Parameter 'id' expects an identifier, found {identity!r}")
    return ObjectSpec(kind, identity, properties)


def _object_name(option: str, pairs: Iterable[tuple[str, str | None]]) -> str:
    """The object as messages name it: without its properties, which a hasty user may have filled with key bytes."""
    for key, value in pairs:
        if key == "qom-type" and value:
            return f"{option} {value}"
    return option


def _json_properties(option: str, text: str) -> list[tuple[str, str | None]]:
    import json  # only for an object that is spelt so

    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise ConfigError(f"{option}: the object in JSON cannot be parsed") from None
    pairs: list[tuple[str, str | None]] = []
    for key, value in document.items():
        if isinstance(value, bool):
            pairs.append((key, "on" if value else "off"))
        elif isinstance(value, str | int):
            pairs.append((key, str(value)))
        else:
            raise ConfigError(f"{option}: Parameter '{key}' expects a string, a number or a boolean")
    return pairs


def parse_objects(option: str, texts: Iterable[str]) -> tuple[ObjectSpec, ...]:
    """Several objects in order; `ConfigError` when two have one id."""
    specs: list[ObjectSpec] = []
    for text in texts:
        spec = parse_object(option, text)
        if any(other.id == spec.id for other in specs):
            raise ConfigError(f"{option} {spec.type}: Duplicate ID '{spec.id}' for object")
        specs.append(spec)
    return tuple(specs)


def check_references(
    option: str, machine_option: str, objects: Iterable[ObjectSpec], machine: Mapping[str, str]
) -> None:
    """Hold the machine's reference to its confidential object against the objects there are.

    `ConfigError` when the id is nobody's (QEMU's texts), when both spellings name different objects, and when an object
    that only such a reference brings to life has none.
    """
    known = {spec.id: spec for spec in objects}
    old, new = (machine.get(name) for name in REFERENCES)
    if old is not None and old not in known:
        raise ConfigError(f"No such memory encryption object '{old}'")
    if new is not None and new not in known:
        raise ConfigError(f"Device '{new}' not found")
    if old is not None and new is not None and old != new:
        raise ConfigError(
            f"{machine_option}: {REFERENCES[0]}={old} and {REFERENCES[1]}={new} name two objects, expected one"
        )
    for spec in known.values():
        if spec.type in CONFIDENTIAL_TYPES and spec.id not in (old, new):
            raise ConfigError(
                f"{option} {spec.type},id={spec.id}: nothing refers to this object, "
                f"expected {machine_option} {REFERENCES[0]}={spec.id}"
            )
