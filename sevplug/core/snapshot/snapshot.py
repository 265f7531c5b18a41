"""The value: a machine's identity, its state, and its memory."""

from __future__ import annotations

import copy
from typing import Any

import attrs

from sevplug.core.errors import SnapshotError
from sevplug.core.snapshot import container
from sevplug.core.snapshot.image import Extent, MemoryImage, touched_only
from sevplug.core.whole_file import whole_file


@attrs.frozen
class Snapshot:
    """A machine at one moment, made by `Machine.snapshot` or `Snapshot.load`; any number of machines may restore it.

    ``identity``: which machine it is of (`sevplug.core.snapshot.identity`).  ``state``: of everything but memory, plain
    data.  ``options``: those of plug-ins that decide what the guest is.  ``private``: why it must be in no file without
    a key, or None.  ``where``: names it in messages.  The memory behind it is given back with the value.
    """

    identity: dict[str, Any] = attrs.field(repr=False)
    state: dict[str, Any] = attrs.field(repr=False)
    options: dict[str, Any] = attrs.field(repr=False)
    private: str | None
    image: MemoryImage = attrs.field(repr=False)
    where: str = "snapshot"

    def save(self, path: str, key: bytes | None = None) -> None:
        """Write it to the file ``path``, whole or not at all; ``key``: the user's (`read_snapshot_key`).

        `SnapshotError` when it is private and there is no key, or when the file cannot be written.
        """
        if self.private is not None and key is None:
            raise SnapshotError(needs_key(path, self.private))
        state = copy.copy(self.state)
        state["memory"] = [copy.copy(forms) for forms in state["memory"]]
        states = [None if forms is None else bytearray(forms["states"]) for forms in state["memory"]]
        parts = list(touched_only(self.image.extents, states))
        for forms, kept in zip(state["memory"], states, strict=True):
            if forms is not None and kept is not None:
                forms["states"] = bytes(kept)
        extents = [[part.where, part.start, part.size, part.offset] for part, _source in parts]
        document = {
            "identity": self.identity,
            "state": state,
            "options": self.options,
            "extents": extents,
        }
        memory = container.pieces_of(self.image, [(source, part.size) for part, source in parts])
        try:
            with whole_file(path) as descriptor:
                container.write(descriptor, document, memory, sum(part.size for part, _source in parts), key)
        except OSError as error:
            raise SnapshotError(f"snapshot {path}: {error.strerror or error}") from None
        except ValueError:
            raise SnapshotError(f"snapshot {path!r}: not a file name") from None

    @classmethod
    def load(cls, path: str, key: bytes | None = None) -> Snapshot:
        """The snapshot in the file ``path``.

        `SnapshotError`, one line, for a file that is missing, of another version, truncated, damaged, under another key
        or under none.
        """
        contents = container.read(path, key)
        where = f"snapshot {path}"
        document = contents.document
        try:
            extents = tuple(Extent(*map(_whole, extent)) for extent in document["extents"])
            identity, state, options = (_mapping(document[name]) for name in ("identity", "state", "options"))
            _check_extents(extents, identity, contents.size)
        except (KeyError, TypeError, ValueError, IndexError):
            raise SnapshotError(f"{where}: what it holds is no state of a machine") from None
        private = None if key is None else "it was under a key"
        image = MemoryImage(contents.file, contents.base, extents)
        return cls(identity, state, options, private, image, where)


def needs_key(path: str, why: str) -> str:
    """The refusal to write secrets in the clear."""
    return f"snapshot {path}: {why}, so it needs a key: expected --snapshot-key FILE"


def _whole(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise TypeError("expected a number")
    return value


def _mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError("expected an object")
    return value


def _check_extents(extents: tuple[Extent, ...], identity: dict[str, Any], held: int) -> None:
    """ValueError unless each piece lies in its range, and they fill what the file holds one behind the other."""
    end = 0
    for extent in extents:
        size = _whole(identity["ranges"][extent.where][3])
        if extent.start % 4096 or extent.size % 4096 or extent.start + extent.size > size or extent.offset != end:
            raise ValueError("a piece of memory that is out of place")
        end += extent.size
    if end != held:
        raise ValueError("memory that belongs nowhere")
