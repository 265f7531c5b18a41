"""What QEMU 11.1 answered, request by request, is what a machine of ours answers, byte for byte."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from qmp_support import Client, real_machine

TRANSCRIPT = Path(__file__).with_name("qemu-11.1-transcript.txt")

# Every difference there is, and why.
DIFFERENCES = (
    # Another program, compatible with the first release of that series.
    (
        rb'{"qemu": {"micro": 3, "minor": 1, "major": 11}, "package": "[^"]*"}',
        b'{"qemu": {"micro": 0, "minor": 1, "major": 11}, "package": "sevplug 0.1.0"}',
    ),
    # Out-of-band commands are not implemented, so they are not offered.
    (rb'"capabilities": \["oob"\]', b'"capabilities": []'),
    # The recorded QEMU could have used KVM; nothing here can.
    (rb'{"enabled": false, "present": true}', b'{"enabled": false, "present": false}'),
    # The time of the recording.
    (rb'"timestamp": {"seconds": \d+, "microseconds": \d+}', b'"timestamp": {}'),
)


def steps() -> Iterator[tuple[bytes, bytes]]:
    """(what the client sends, what the server sends then); the greeting comes first, unasked."""
    sent = b""
    for line in TRANSCRIPT.read_text().splitlines():
        if line.startswith(">"):
            sent = ast.literal_eval(line[2:])
        else:
            yield sent, ast.literal_eval(line[2:])


def ours(recorded: bytes) -> bytes:
    for pattern, replacement in DIFFERENCES:
        recorded = re.sub(pattern, replacement, recorded)
    return recorded


def test_a_recorded_conversation_goes_the_same_way(tmp_path: Path) -> None:
    with real_machine(f"unix:{tmp_path}/q"), Client(tmp_path / "q") as client:
        for sent, recorded in steps():
            client.send(sent)
            expected = ours(recorded)
            answer = client.lines(expected.count(b"\n"))
            assert re.sub(*DIFFERENCES[-1], answer) == expected, sent
        assert client.line() == b""  # the last request was quit
