"""The launch of a guest: its states, and which step may follow which.

The states carry QEMU's names.  What a launch *means* (keys, digests, formats) belongs to plug-ins: they hang their own
values on ``Launch.context`` and answer the launch hooks; this file only keeps the order.
"""

from __future__ import annotations

import enum

import attrs

from sevplug.core.errors import LaunchRefused
from sevplug.core.images import ImagePart


class LaunchState(enum.Enum):
    """Where a launch stands; the value is the name that QEMU's monitor prints."""

    UNINIT = "uninit"
    UPDATE = "launch-update"
    SECRET = "launch-secret"
    RUNNING = "running"


# step -> (states it is legal in, state after it)
_STEPS: dict[str, tuple[frozenset[LaunchState], LaunchState]] = {
    "start": (frozenset({LaunchState.UNINIT}), LaunchState.UPDATE),
    "update": (frozenset({LaunchState.UPDATE}), LaunchState.UPDATE),
    "measure": (frozenset({LaunchState.UPDATE}), LaunchState.SECRET),
    "secret": (frozenset({LaunchState.SECRET}), LaunchState.SECRET),
    "finish": (frozenset({LaunchState.UPDATE, LaunchState.SECRET}), LaunchState.RUNNING),
}


@attrs.frozen
class LaunchRegion:
    """Initial guest memory that the launch takes in, in the order of measuring.

    ``gpa``: guest-physical address of the first byte; ``page_type``: open, a plug-in's own word for the kind of page;
    ``reload``: placed again at each reset, as a ROM's contents are.  Made with the bytes, or with the part of an image.
    """

    name: str
    gpa: int
    contents: bytes | ImagePart = attrs.field(alias="data", repr=lambda data: f"<{len(data)} bytes>")
    page_type: str | int = "normal"
    reload: bool = False

    @property
    def data(self) -> bytes:
        """The bytes; of an image's part a copy, made now.  `ConfigError` where the image was let go and has changed."""
        return self.contents.data if isinstance(self.contents, ImagePart) else self.contents

    @property
    def view(self) -> bytes | memoryview:
        """The same for those who only look; of an image's part without padding it is no copy."""
        contents = self.contents
        if isinstance(contents, ImagePart):
            return contents.data if contents.padding else contents.view
        return contents

    @property
    def size(self) -> int:
        """How many bytes it has."""
        return len(self.contents)


@attrs.frozen
class LaunchRequest:
    """What ``launch_start`` is asked to begin: the regions that will follow, in order."""

    regions: tuple[LaunchRegion, ...]


@attrs.frozen
class LaunchMeasurement:
    """The answer to ``launch_measure``.

    ``digest``: over all measured plaintext.  ``blob``: the authenticated measurement that an owner checks.
    """

    digest: bytes
    blob: bytes


@attrs.frozen
class LaunchSecret:
    """A sealed packet as the host receives it.  ``gpa`` None means: where the firmware says."""

    header: bytes
    payload: bytes = attrs.field(repr=lambda data: f"<{len(data)} bytes>")
    gpa: int | None = None


@attrs.define
class Launch:
    """One launch in progress.

    ``context`` is what the plug-in that answered ``launch_start`` returned; ``regions`` grows with each update.
    """

    state: LaunchState = LaunchState.UNINIT
    context: object = attrs.field(default=None, repr=False)
    regions: list[LaunchRegion] = attrs.field(factory=list)
    measurement: LaunchMeasurement | None = None

    def check(self, step: str) -> None:
        """Raise `LaunchRefused` when ``step`` (a key of the table above) is not legal in the present state."""
        legal, _after = _STEPS[step]
        if self.state not in legal:
            expected = " or ".join(sorted(state.value for state in legal))
            raise LaunchRefused(f"launch {step} is refused in state {self.state.value}: expected {expected}")

    def advance(self, step: str) -> None:
        """Check ``step`` and move to the state after it."""
        self.check(step)
        self.state = _STEPS[step][1]
