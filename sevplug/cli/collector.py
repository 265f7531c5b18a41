"""Python's collector of cyclic garbage, in a process that is a command line and nothing else.

Modules, classes and functions are what a start makes, and they stay until the end.  The collector would look through
them again and again while they come, at times while the guest runs, and all of them once more at exit, where each is
then taken apart: a sixth of the embedded guest's whole process.  Neither building a machine nor running it makes cycles
worth speaking of, and what they make is collected as ever.  A process that runs other code too, such as a user's tests,
is left alone: it does not call `put_off`.
"""

from __future__ import annotations

import gc

# More objects than any start makes; a command that builds no machine is still bounded by it.
_OBJECTS = 100_000
_usual: tuple[int, int, int] | None = None


def put_off() -> None:
    """From the start of a process on: collect seldom."""
    global _usual
    _usual = gc.get_threshold()
    gc.set_threshold(_OBJECTS, *_usual[1:])


def settle() -> None:
    """Everything is loaded: it is not looked at any more, and what comes now is collected as ever.

    Without `put_off` before it nothing happens.
    """
    global _usual
    if _usual is not None:
        gc.freeze()
        gc.set_threshold(*_usual)
        _usual = None
