"""The keys that are not the guest's: Ctrl-A and what follows it.

As in QEMU with ``-nographic`` (``chardev/char-mux.c``), but for what needs its monitor.
"""

from __future__ import annotations

CTRL_A = 0x01
HELP = """
Ctrl-A x       end the run
Ctrl-A h       this help
Ctrl-A Ctrl-A  send Ctrl-A to the guest
"""


class EscapeFilter:
    """Takes the keys as they come and keeps Ctrl-A with the key behind it to itself.

    ``actions``: letters that were typed behind Ctrl-A and mean something (``x``, ``h``), for the caller to take.
    """

    def __init__(self) -> None:
        self._escaped = False
        self.actions: list[str] = []

    def feed(self, keys: bytes) -> bytes:
        """The part of ``keys`` that is for the guest; nothing behind the key that ends the run is."""
        kept = bytearray()
        for key in keys:
            if self._escaped:
                self._escaped = False
                if key == CTRL_A:
                    kept.append(key)
                elif key in b"xX":
                    self.actions.append("x")
                    break
                elif key in b"hH?":
                    self.actions.append("h")
            elif key == CTRL_A:
                self._escaped = True
            else:
                kept.append(key)
        return bytes(kept)
