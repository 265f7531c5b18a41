"""The order of an object's members on the wire.

QEMU keeps objects in a hash table of fixed size and prints them bucket by bucket, so the order is the same in every
QEMU, and clients' logs and recordings hold it.  Source: QEMU's ``qobject/qdict.c`` (the table and its hash, which is
Samba's tdb hash).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T")

_BUCKETS = 512
_PERIOD = 24  # byte i is shifted by 5 * i modulo this, which repeats after as many bytes


def bucket(key: str) -> int:
    """The bucket (0 to 511) that a member named ``key`` falls into."""
    data = key.encode("utf-8", "surrogatepass").replace(b"\0", b"\xc0\x80")
    value = 0x238F13AF * len(data)
    for start in range(min(_PERIOD, len(data))):
        value += sum(data[start::_PERIOD]) << (start * 5 % _PERIOD)
    return (1103515243 * (value & 0xFFFFFFFF) + 12345 & 0xFFFFFFFF) % _BUCKETS


def ordered(members: Mapping[str, T]) -> list[tuple[str, T]]:
    """The members in the order of the wire: by bucket, and the one inserted last first within a bucket."""
    numbered = [(bucket(key), -number, key) for number, key in enumerate(members)]
    return [(key, members[key]) for _bucket, _number, key in sorted(numbered)]
