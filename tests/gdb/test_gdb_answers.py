"""What a client asks about, well or badly, and what it is told."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from assembler import assemble
from guests import real16
from remote_debugger import debugged

from sevplug.plugins.gdb.registers import REGISTERS

STOP = b"T05thread:01;"


@pytest.mark.parametrize(
    ("packet", "answer"),
    [
        (b"qSupported:swbreak+;xmlRegisters=i386", rb"PacketSize=4000;qXfer:features:read\+;QStartNoAckMode\+;.*"),
        (b"vCont?", b"vCont;c;C;s;S"),
        (b"vMustReplyEmpty", b""),
        (b"qAttached", b"1"),
        (b"qAttached:1", b"1"),
        (b"Hg0", b"OK"),
        (b"Hc-1", b"OK"),
        (b"Hgp1.1", b"OK"),
        (b"Hg2", b"E16"),
        (b"T1", b"OK"),
        (b"T7", b"E16"),
        (b"qfThreadInfo", b"m1"),
        (b"qsThreadInfo", b"l"),
        (b"qThreadExtraInfo,1", b"CPU#0".hex().encode()),
        (b"qSymbol::", b"OK"),
        (b"qTStatus", b""),
        (b"!", b""),
        (b"", b""),
        (b"\xff\xfe", b""),
        (b"qXfer:features:read:other.xml:0,10", b"E00"),
        (b"qXfer:memory-map:read::0,10", b""),
        (b"qXfer:features:read:target.xml", b"E00"),
        (b"qXfer:features:read:target.xml:fffffff,10", b"l"),
        (b"m7fff00000000,4", b"E0e"),
        (b"M7fff00000000,1:00", b"E0e"),
        (b"m1000", b"E16"),
        (b"m1000,", b"E16"),
        (b"mzz,4", b"E16"),
        (b"m11112222333344445,4", b"E16"),
        (b"m4000,0", b""),
        (b"M4000,2:00", b"E16"),
        (b"M4000,1:0", b"E16"),
        (b"M4000,1:zz", b"E16"),
        (b"X4000,2:a", b"E16"),
        (b"pfff", b"E16"),
        (b"p", b"E16"),
        (b"P0=00", b"E16"),
        (b"P0", b"E16"),
        (b"G00", b"E16"),
        (b"Z0", b"E16"),
        (b"Z0,zz,1", b"E16"),
        (b"cxyz", b"E16"),
        (b"s-1", b"E16"),
        (b"vCont", b"E16"),
        (b"vCont;x", b"E16"),
        (b"vCont;s:7", b"E16"),
        (b"qRcmd,zz", b"E16"),
    ],
)
def test_a_question_and_its_answer(packet: bytes, answer: bytes, tmp_path: Path) -> None:
    with debugged(assemble(real16("nop")), tmp_path) as guest, guest.debugger() as debugger:
        found = debugger.ask(packet)
        assert re.fullmatch(answer, found), found
        assert debugger.ask(b"?") == STOP


def test_the_description_names_every_register_in_order(tmp_path: Path) -> None:
    with debugged(assemble(real16("nop")), tmp_path) as guest, guest.debugger() as debugger:
        document = b""
        while True:
            piece = debugger.ask(b"qXfer:features:read:target.xml:%x,400" % len(document))
            document += piece[1:]
            if piece[:1] == b"l":
                break
        assert b"}" not in document  # nothing to unescape
        tree = ElementTree.fromstring(document.decode())
        assert [node.get("name") for node in tree.iter("reg")] == [register.name for register in REGISTERS]
        sizes = [int(node.get("bitsize", "")) for node in tree.iter("reg")]
        assert sum(sizes) == 4 * len(debugger.ask(b"g"))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("help", r"(?s).*info sev .*page ADDRESS.*"),
        ("info status", r"VM status: paused \(prelaunch\)\n"),
        ("status", r"VM status: paused \(prelaunch\)\n"),
        ("sev", r"SEV is not enabled\n"),
        ("page", r"page: expected one address.*\n"),
        ("page zz", r"page: expected one address.*\n"),
        ("page 0x4000", r"linear 0x4000 is guest-physical 0x4000, shared, ram\n"),
        ("page 0xfee00000", r"linear 0xfee00000 is guest-physical 0xfee00000, shared, no memory\n"),
        ("page -1", r"-1: not mapped\n"),
        ("nonsense", r"unknown command: 'nonsense'\n"),
    ],
)
def test_monitor_commands(line: str, expected: str, tmp_path: Path) -> None:
    with debugged(assemble(real16("nop")), tmp_path) as guest, guest.debugger() as debugger:
        text = bytes.fromhex(debugger.ask(b"qRcmd," + line.encode().hex().encode()).decode()).decode()
        assert re.fullmatch(expected, text), text
