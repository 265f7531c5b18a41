"""An axis: its values by their labels, each of them words of ``sevplug run``."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import PurePath

from sevplug.matrix.fields import Field

Words = tuple[str, ...]
# A matrix may have more than one axis of this kind: "options-memory".
_OPTIONS = "options"
_FILES = ("firmware", "kernel")
_KERNEL_OPTIONS = {"file": "--kernel", "initrd": "--initrd", "append": "--append"}


def reader_of(name: str) -> Callable[[Field], Words] | None:
    """What makes words of one value of the axis ``name``; None where there is no such axis."""
    return _READERS.get(_OPTIONS if name.startswith(f"{_OPTIONS}-") else name)


def known_axes() -> str:
    """The names that an axis may have, for messages."""
    return f"{', '.join(_READERS)}, {_OPTIONS}-NAME"


def read_axis(name: str, field: Field) -> dict[str, Words]:
    """An axis' values: label to words, in the file's order.

    A table says the labels.  In an array a value is labelled by itself: a file's name (its path, where two files have
    one name), the words, or what its absence is called.
    """
    reader = reader_of(name)
    if reader is None:
        field.refuse(known_axes(), "unknown axis")
    if isinstance(field.value, dict):
        values = field.table()
        for label, value in values.items():
            Field(value.file, value.key, label).label()
        found = {label: reader(value) for label, value in values.items()}
    else:
        found = _labelled(name, field, reader)
    if not found:
        field.refuse("at least one value", "no value")
    return found


def _labelled(name: str, field: Field, reader: Callable[[Field], Words]) -> dict[str, Words]:
    if not isinstance(field.value, list):
        field.refuse("an array of values, or a table of values by their labels")
    values = list(field.array())
    read = [reader(value) for value in values]
    names = [_label(name, value, words) for value, words in zip(values, read, strict=True)]
    often = Counter(names)
    found: dict[str, Words] = {}
    for value, words, short in zip(values, read, names, strict=True):
        label = " ".join(words[1::2]) if often[short] > 1 and words and name in _FILES else short
        Field(value.file, value.key, label).label()
        if label in found:
            value.refuse("another, or a table that labels them", "the same as one before it")
        found[label] = words
    return found


def _label(name: str, value: Field, words: Words) -> str:
    if not words:
        return f"no-{name}" if name in _FILES else f"default-{name}"
    if name in _FILES:
        return PurePath(words[1]).name
    if name == "plugins":
        return " ".join(words[1::2])
    return value.value if isinstance(value.value, str) else shlex.join(words)


def _firmware(field: Field) -> Words:
    """A file is mapped below 4 GiB, two are flash: code and variables.  The empty string is none."""
    if isinstance(field.value, list):
        files = [value.text() for value in field.array()]
        if len(files) not in (1, 2):
            field.refuse("the firmware's code and its variables", f"{len(files)} files")
        return tuple(word for file in files for word in ("--pflash", file))
    file = field.text("a file name, or an array of two: the firmware's code and its variables")
    return ("--bios", file) if file else ()


def _kernel(field: Field) -> Words:
    """A file, or a table that has an initrd and a command line too.  The empty string is none."""
    if isinstance(field.value, dict):
        fields = field.table(_KERNEL_OPTIONS)
        if "file" not in fields:
            field.refuse("file", "no key of that name")
        return tuple(
            word for key, option in _KERNEL_OPTIONS.items() if key in fields for word in (option, fields[key].text())
        )
    file = field.text(f"a file name, or a table with {', '.join(_KERNEL_OPTIONS)}")
    return ("--kernel", file) if file else ()


def _options(field: Field) -> Words:
    """Words of their own in an array, or a string that is taken apart as a shell does it."""
    if isinstance(field.value, list):
        return field.words()
    text = field.text("an array of words, or a string that holds them")
    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        field.refuse("words as in a shell", str(error))


def _plugins(field: Field) -> Words:
    """What ``-P`` takes: a word or several."""
    return tuple(word for value in field.one_or_more() for word in ("-P", value.text("a word of -P")))


_READERS: Mapping[str, Callable[[Field], Words]] = {
    "firmware": _firmware,
    "kernel": _kernel,
    _OPTIONS: _options,
    "plugins": _plugins,
}
