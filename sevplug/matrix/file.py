"""A matrix in TOML as cells: the product of its axes, less what is excluded, and what is included besides.

As in GitHub Actions' ``strategy.matrix`` (docs.github.com, "Workflow syntax"), ``exclude`` goes first.  Other than
there, no cell is made up of what matches nothing: an ``[[include]]`` with a name is a cell of its own, one without a
name changes settings of the cells that it selects, and has to select some.
"""

from __future__ import annotations

import itertools
import math
import tomllib
from collections.abc import Iterable, Mapping

import attrs

from sevplug.core.errors import ConfigError
from sevplug.matrix import settings
from sevplug.matrix.axes import Words, read_axis, reader_of
from sevplug.matrix.fields import Field
from sevplug.matrix.settings import Settings
from sevplug.matrix.values import Cell

CELLS_MAX = 10_000
SEPARATOR = "/"
_NAME = "name"
_PARTS = ("axes", "defaults", "exclude", "include")

Axes = dict[str, dict[str, Words]]
Selected = dict[str, set[str]]


@attrs.frozen
class _Draft:
    """A cell before it is one."""

    name: str
    labels: dict[str, str]
    own: Words
    settings: Settings


def parse_matrix(data: bytes, file: str, folder: str) -> tuple[Cell, ...]:
    """The cells of a matrix file, in its order: the first axis changes slowest, included cells come last.

    ``data`` is its content (UTF-8), ``file`` its name for messages, ``folder`` what its paths are relative to.
    `ConfigError` for what is no matrix.
    """
    fields = _root(data, file).table(_PARTS)
    axes = {name: read_axis(name, axis) for name, axis in fields["axes"].table().items()} if "axes" in fields else {}
    defaults = settings.read_defaults(fields["defaults"].table(settings.KEYS)) if "defaults" in fields else Settings()
    excluded = [_select(item, axes) for item in _items(fields.get("exclude"))]
    drafts = [draft for draft in _product(axes, defaults, fields) if not any(_selects(draft, it) for it in excluded)]
    for item in _items(fields.get("include")):
        drafts = _included(item, axes, defaults, drafts)
    if not drafts:
        raise ConfigError(f"{file}: no cell, expected [axes], or an [[include]] with a name")
    _check_names(drafts, file)
    return tuple(
        Cell(it.name, it.labels, it.settings.words(it.own), folder, it.settings.timeout, it.settings.expectation)
        for it in drafts
    )


def _root(data: bytes, file: str) -> Field:
    try:
        return Field(file, "", tomllib.loads(data.decode()))
    except UnicodeDecodeError:
        raise ConfigError(f"{file}: not UTF-8, expected TOML") from None
    except RecursionError:
        raise ConfigError(f"{file}: nested too deeply, expected a matrix") from None
    except ValueError as error:
        raise ConfigError(f"{file}: {error}, expected TOML") from None


def _items(field: Field | None) -> Iterable[Field]:
    return () if field is None else field.array()


def _product(axes: Axes, defaults: Settings, fields: Mapping[str, Field]) -> Iterable[_Draft]:
    if not axes:
        return
    if math.prod(map(len, axes.values())) > CELLS_MAX:
        fields["axes"].refuse(f"at most {CELLS_MAX} cells", "a product that is larger")
    for chosen in itertools.product(*(values.items() for values in axes.values())):
        labels = dict(zip(axes, (label for label, _ in chosen), strict=True))
        words = tuple(word for _, words in chosen for word in words)
        yield _Draft(SEPARATOR.join(labels.values()), labels, words, defaults)


def _select(item: Field, axes: Axes, *more: str) -> Selected:
    """The labels that ``item`` names, by axis; keys of ``more`` are somebody else's."""
    selected = {}
    for name, field in item.table((*axes, *more)).items():
        if name in axes:
            selected[name] = {one.word_of(axes[name]) for one in field.one_or_more()}
    if not selected:
        item.refuse(f"at least one of {', '.join(axes) or 'the axes, of which there are none'}", "no axis")
    return selected


def _selects(draft: _Draft, selected: Selected) -> bool:
    return all(draft.labels.get(name) in labels for name, labels in selected.items())


def _included(item: Field, axes: Axes, defaults: Settings, drafts: list[_Draft]) -> list[_Draft]:
    fields = item.table()
    if _NAME in fields:
        return [*drafts, _own_cell(item, axes, defaults)]
    selected = _select(item, axes, *settings.KEYS)
    if not any(_selects(draft, selected) for draft in drafts):
        item.refuse("labels of a cell that is not excluded, or a name for a cell of its own", "no cell matches")
    changed = []
    for draft in drafts:
        own = settings.overridden(draft.settings, fields) if _selects(draft, selected) else draft.settings
        changed.append(attrs.evolve(draft, settings=own))
    return changed


def _own_cell(item: Field, axes: Axes, defaults: Settings) -> _Draft:
    """A cell whose values are labels of the axes, or values as an axis has them."""
    fields = item.table()
    labels: dict[str, str] = {}
    words: list[str] = []
    for name, field in fields.items():
        reader = reader_of(name)
        if reader is None:
            if name not in (_NAME, *settings.KEYS):
                field.refuse(f"{_NAME}, an axis, {', '.join(settings.KEYS)}", "unknown key")
        elif isinstance(field.value, str) and field.value in axes.get(name, {}):
            labels[name] = field.value
            words += axes[name][field.value]
        else:
            words += reader(field)
    return _Draft(fields[_NAME].label(), labels, tuple(words), settings.overridden(defaults, fields))


def _check_names(drafts: Iterable[_Draft], file: str) -> None:
    seen = set()
    for draft in drafts:
        if draft.name in seen:
            raise ConfigError(f"{file}: two cells are named {draft.name}, expected other labels or names")
        seen.add(draft.name)
