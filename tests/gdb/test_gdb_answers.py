"""What a client asks about, well or badly, and what it is told."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator

import pytest
from assembler import assemble
from guests import real16
from hypothesis import given
from hypothesis import strategies as st
from machines import machine_with
from remote_debugger import Debugger, debugged

from sevplug.plugins.gdb.registers import REGISTERS
from sevplug.plugins.gdb.session import _HANDLERS, PACKET_SIZE, Session

STOP = b"T05thread:01;"
NUMBER = {register.name: number for number, register in enumerate(REGISTERS)}
EXTENDED = [f"r{number}" for number in range(8, 16)]
# Values for registers that do not take any.
SPECIAL = {
    "eflags": 0x246, "cr0": 0x60000011, "cr3": 0x13000, "cr4": 0x620, "efer": 0x901, "rip": 0x4321,
    "fctrl": 0x27F, "fstat": 0x3801, "ftag": 0xFFFD, "mxcsr": 0x1FA0, "st0": 0x3FFF8000000000000000,
}  # fmt: skip


@pytest.fixture(scope="module")
def debugger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Debugger]:
    """A debugger whose guest waits at its reset vector all the time."""
    with debugged(assemble(real16("nop")), tmp_path_factory.mktemp("gdb")) as guest, guest.debugger() as debugger:
        yield debugger


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
def test_a_question_and_its_answer(packet: bytes, answer: bytes, debugger: Debugger) -> None:
    found = debugger.ask(packet)
    assert re.fullmatch(answer, found), found
    assert debugger.ask(b"?") == STOP


def test_the_description_names_every_register_in_order(debugger: Debugger) -> None:
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
def test_monitor_commands(line: str, expected: str, debugger: Debugger) -> None:
    text = bytes.fromhex(debugger.ask(b"qRcmd," + line.encode().hex().encode()).decode()).decode()
    assert re.fullmatch(expected, text), text


@pytest.mark.parametrize("name", [register.name for register in REGISTERS if register.write])
def test_a_register_keeps_what_it_is_given(name: str, debugger: Debugger) -> None:
    number, size = NUMBER[name], REGISTERS[NUMBER[name]].size
    value = SPECIAL.get(name, 0x1234 if size == 4 else int.from_bytes(bytes(range(1, size + 1)), "little"))
    before = debugger.ask(b"p%x" % number)
    assert debugger.ask(b"P%x=%s" % (number, value.to_bytes(size, "little").hex().encode())) == b"OK"
    # 16-bit code has 32 bits of the first eight registers.
    expected = value & 0xFFFFFFFF if name[0] == "r" and not name[1:].isdigit() else 0 if name in EXTENDED else value
    assert debugger.register(number) == expected
    assert debugger.ask(b"P%x=%s" % (number, before)) == b"OK"


def test_a_register_that_nobody_can_set_forgets_what_it_is_given(debugger: Debugger) -> None:
    for name in ("cr8", "cs_base", "idtr_limit", "fop"):
        before = debugger.ask(b"p%x" % NUMBER[name])
        assert debugger.ask(b"P%x=%s" % (NUMBER[name], b"7" * len(before))) == b"OK"
        assert debugger.ask(b"p%x" % NUMBER[name]) == before


WORDS = st.sampled_from([b"", b"0", b"1", b"4000", b"ffffffffffffffff", b":", b",", b";", b"=", b"?", b"features:read"])


PACKETS = st.builds(
    lambda name, words, more: name + b"".join(words) + more,
    st.sampled_from(sorted(_HANDLERS)),
    st.lists(WORDS),
    st.binary(max_size=6),
)


def test_every_packet_has_an_answer_or_none_is_due() -> None:
    """Whatever is in it, and whatever came before."""
    with machine_with(assemble(real16("nop")), paused=True) as (machine, _board):

        @given(st.lists(PACKETS))
        def talk(packets: list[bytes]) -> None:
            session = Session(machine, lambda _data: None)
            for packet in packets:
                answer = session.answer(packet)
                assert answer is None or len(answer) <= PACKET_SIZE
                assert not set(answer or b"") & set(b"$#")
            session.leave()
            assert not machine.debug.breakpoints

        talk()
