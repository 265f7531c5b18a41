"""What a cell has besides its axes' values: ``[defaults]``, and what an ``[[include]]`` says otherwise."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from sevplug.core.result import RESULTS
from sevplug.matrix.fields import Field
from sevplug.matrix.values import Expectation

TIMEOUT = 300.0
_TIMEOUT_MAX = 1_000_000.0
_STATUS_MAX = 255
KEYS = ("timeout", "memory", "arguments", "expect")
_EXPECT_KEYS = ("status", "result", "serial", "not-serial")


@attrs.frozen
class Settings:
    """``memory``: as ``-m`` takes it.  ``before`` and ``after``: words on both sides of the axes' own.

    ``expect`` holds what was said, by its key; `expectation` is what it means.
    """

    timeout: float = TIMEOUT
    memory: str | None = None
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    expect: Mapping[str, frozenset[int] | frozenset[str] | tuple[str, ...]] = attrs.field(factory=dict)

    def words(self, own: tuple[str, ...]) -> tuple[str, ...]:
        """A cell's words around its axes' ``own``; of an option that is given twice, `run` takes the last."""
        memory = () if self.memory is None else ("-m", self.memory)
        return (*memory, *self.before, *own, *self.after)

    @property
    def expectation(self) -> Expectation:
        """With neither an exit status nor a result, status 0: the guest ended in order."""
        given = self.expect
        status = given.get("status", None if "result" in given else frozenset({0}))
        return Expectation(status, given.get("result"), given.get("serial", ()), given.get("not-serial", ()))  # type: ignore[arg-type]


def read_defaults(fields: Mapping[str, Field]) -> Settings:
    """``[defaults]``: its arguments come before a cell's own words."""
    found = overridden(Settings(), fields)
    return attrs.evolve(found, before=found.after, after=())


def overridden(settings: Settings, fields: Mapping[str, Field]) -> Settings:
    """``settings`` with what ``fields`` say: arguments are added at the end, keys of ``expect`` replaced one by one."""
    changes: dict[str, object] = {}
    for key, field in fields.items():
        if key == "timeout":
            changes[key] = field.seconds(_TIMEOUT_MAX)
        elif key == "memory":
            changes[key] = _memory(field)
        elif key == "arguments":
            changes["after"] = (*settings.after, *field.words())
        elif key == "expect":
            changes[key] = {**settings.expect, **_read_expect(field)}
    return attrs.evolve(settings, **changes)  # type: ignore[arg-type]


def _memory(field: Field) -> str:
    """A string as ``-m`` has it, or an integer: MiB."""
    value = field.value
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return f"{value}M"
    return field.text('a size such as "256M", or MiB as an integer')


def _read_expect(field: Field) -> dict[str, frozenset[int] | frozenset[str] | tuple[str, ...]]:
    found: dict[str, frozenset[int] | frozenset[str] | tuple[str, ...]] = {}
    for key, value in field.table(_EXPECT_KEYS).items():
        if key in ("status", "result") and value.value == []:
            value.refuse("at least one value", "an empty array")
        if key == "status":
            found[key] = frozenset(one.integer(0, _STATUS_MAX) for one in value.one_or_more())
        elif key == "result":
            found[key] = frozenset(one.word_of(RESULTS) for one in value.one_or_more())
        else:
            found[key] = tuple(one.text() for one in value.one_or_more())
    return found
