"""Split virtqueues: chains as the driver wrote them, and a clean error for every rule that a driver can break."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from virtio_driver import AVAILABLE, INDIRECT, NEXT, TABLE, USED, WRITE, Driver

from sevplug.board.virtio.queue import Buffer, Chain, QueueError, VirtQueue, size_of, split
from sevplug.core.memory import GuestMemory

RAM = 1 << 20
INDIRECT_TABLE = 0x8000
MEMORY = GuestMemory(RAM)


@pytest.fixture
def driver() -> Driver:
    return Driver(MEMORY)


def queue(size: int = 8, *, indirect: bool = True, event_index: bool = False) -> VirtQueue:
    made = VirtQueue(MEMORY, 8)
    made.size, made.descriptors, made.driver_area, made.device_area = size, TABLE, AVAILABLE, USED
    made.indirect, made.event_index = indirect, event_index
    made.enable()
    return made


def test_a_chain_is_what_is_read_then_what_is_written(driver):
    driver.chain((0x9000, 16, 0), (0xA000, 512, 0), (0xB000, 4096, WRITE), (0xC000, 1, WRITE), first=2)
    driver.offer(2)
    assert list(queue().available()) == [
        Chain(2, (Buffer(0x9000, 16), Buffer(0xA000, 512)), (Buffer(0xB000, 4096), Buffer(0xC000, 1)))
    ]


def test_an_indirect_table_is_followed_also_behind_direct_descriptors(driver):
    driver.chain((0xA000, 8, 0), (0xB000, 8, WRITE), table=INDIRECT_TABLE)
    driver.describe(0, 0x9000, 16, NEXT, 1)
    driver.describe(1, INDIRECT_TABLE, 32, INDIRECT)
    driver.offer(0)
    (chain,) = queue().available()
    assert chain.readable == (Buffer(0x9000, 16), Buffer(0xA000, 8))
    assert chain.writable == (Buffer(0xB000, 8),)


def test_what_was_taken_is_not_offered_again_and_indices_wrap(driver):
    served = queue()
    driver.chain((0x9000, 1, 0))
    for _ in range(0x10000 // 8 + 2):
        driver.offer(*[0] * 8)
        assert len([served.put(chain, 0) for chain in served.available()]) == 8
        assert list(served.available()) == []


def test_used_entries_say_which_chain_and_how_much(driver):
    served = queue()
    driver.chain((0x9000, 1, 0))
    driver.chain((0x9000, 1, 0), first=5)
    driver.offer(5, 0)
    for written, chain in enumerate(served.available()):
        served.put(chain, written + 7)
    assert driver.used == [(5, 7), (0, 8)]


@pytest.mark.parametrize(("flags", "wanted"), [(0, True), (1, False)])
def test_without_event_indices_a_flag_says_whether_to_interrupt(driver, flags, wanted):
    driver.chain((0x9000, 1, 0))
    driver.want_interrupts(flags)
    driver.offer(0)
    served = queue()
    assert [served.put(chain, 0) for chain in served.available()] == [wanted]


def test_with_event_indices_the_driver_names_the_entry_it_waits_for(driver):
    driver.chain((0x9000, 1, 0))
    driver.want_interrupts(event=1)
    driver.offer(0, 0, 0)
    served = queue(event_index=True)
    assert [served.put(chain, 0) for chain in served.available()] == [False, True, False]
    assert driver.expected_notification == 3


@pytest.mark.parametrize(
    ("descriptors", "text"),
    [
        ([(0x9000, 0, 0)], "a buffer of no bytes"),
        ([(RAM - 4, 8, 0)], "buffer at 0xffffc, 8 bytes: not in guest memory"),
        ([(RAM, 1, 0)], "not in guest memory"),
        ([(2**64 - 8, 16, WRITE)], "not in guest memory"),
        ([(0, 2**32 - 1, WRITE)], "not in guest memory"),
        ([(0x9000, 1, WRITE), (0xA000, 1, 0)], "buffer at 0xa000: one to read behind one to write"),
        ([(0x9000, 1, NEXT), (0xA000, 1, NEXT), (0xB000, 1, NEXT)], "descriptor 8 of a table of 8"),
        ([(INDIRECT_TABLE, 16, INDIRECT | NEXT)], "an indirect descriptor with a next one"),
        ([(INDIRECT_TABLE, 0, INDIRECT)], "an indirect table of 0 bytes, expected a multiple of 16"),
        ([(INDIRECT_TABLE, 24, INDIRECT)], "an indirect table of 24 bytes, expected a multiple of 16"),
        ([(RAM - 16, 32, INDIRECT)], "indirect table at 0xffff0, 32 bytes: not in guest memory"),
    ],
)
def test_a_chain_that_breaks_a_rule_is_an_error(driver, descriptors, text):
    for number, (gpa, size, flags) in enumerate(descriptors):
        last = number == len(descriptors) - 1
        driver.describe(number, gpa, size, flags | (0 if last else NEXT), 8 if last else number + 1)
    driver.offer(0)
    with pytest.raises(QueueError, match=text.replace("^", r"\^")):
        list(queue().available())


def test_a_chain_in_a_circle_ends(driver):
    driver.describe(0, 0x9000, 1, NEXT, 1)
    driver.describe(1, 0x9000, 1, NEXT, 0)
    driver.offer(0)
    with pytest.raises(QueueError, match="longer than 8 descriptors"):
        list(queue().available())


def test_a_circle_in_an_indirect_table_ends_and_tables_do_not_nest(driver):
    driver.describe(0, INDIRECT_TABLE, 32, INDIRECT)
    driver.describe(0, 0x9000, 1, NEXT, 0, INDIRECT_TABLE)
    driver.offer(0)
    with pytest.raises(QueueError, match="longer than 8 descriptors"):
        list(queue().available())
    driver.describe(0, INDIRECT_TABLE, 32, INDIRECT, 0, INDIRECT_TABLE)
    with pytest.raises(QueueError, match="an indirect descriptor in an indirect table"):
        list(queue().available())


def test_an_indirect_descriptor_has_to_be_negotiated(driver):
    driver.chain((0x9000, 1, 0), table=INDIRECT_TABLE)
    driver.describe(0, INDIRECT_TABLE, 16, INDIRECT)
    driver.offer(0)
    with pytest.raises(QueueError, match="not negotiated"):
        list(queue(indirect=False).available())


def test_an_index_that_jumps_or_a_head_that_is_none_is_an_error(driver):
    driver.chain((0x9000, 1, 0))
    driver.offer(0, ahead=8)
    with pytest.raises(QueueError, match="the available index moved from 0 to 9, by more than the size"):
        list(queue().available())
    driver = Driver(MEMORY)
    driver.offer(8)
    with pytest.raises(QueueError, match="descriptor 8 of a table of 8"):
        list(queue().available())


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"size": 0}, "queue size 0, expected a power of two up to 8"),
        ({"size": 6}, "queue size 6"),
        ({"size": 16}, "queue size 16"),
        ({"descriptors": 0x1008}, "descriptor table at 0x1008, expected a multiple of 16"),
        ({"driver_area": 0x3001}, "available ring at 0x3001, expected a multiple of 2"),
        ({"device_area": 0x4002}, "used ring at 0x4002, expected a multiple of 4"),
        ({"descriptors": RAM - 16}, "descriptor table at 0xffff0, 128 bytes: not in guest memory"),
        ({"device_area": 2**64 - 8}, "used ring at 0xfffffffffffffff8, 70 bytes: not in guest memory"),
    ],
)
def test_a_queue_that_cannot_be_is_not_enabled(change, text):
    made = VirtQueue(MEMORY, 8)
    made.descriptors, made.driver_area, made.device_area = TABLE, AVAILABLE, USED
    for name, value in change.items():
        setattr(made, name, value)
    with pytest.raises(QueueError, match=text):
        made.enable()
    assert not made.enabled


def test_a_reset_forgets_everything(driver):
    driver.chain((0x9000, 1, 0))
    driver.offer(0)
    served = queue()
    list(served.available())
    served.reset()
    assert vars(served) == vars(VirtQueue(MEMORY, 8))


@given(st.lists(st.integers(1, 9), max_size=6), st.integers(0, 60))
def test_buffers_are_cut_at_any_byte(sizes, at):
    buffers = tuple(Buffer(100 * number, size) for number, size in enumerate(sizes))
    first, rest = split(buffers, at)
    every = [buffer.gpa + byte for buffer in buffers for byte in range(buffer.size)]
    assert [piece.gpa + byte for piece in first + rest for byte in range(piece.size)] == every
    assert size_of(first) == min(at, len(every))
    assert all(piece.size for piece in first + rest)


words = st.sampled_from([0, 1, 2, 7, 8, 16, 32, 0x1000, 0x8000, RAM - 1, RAM, 0xFFFF, 0xFFFF_FFFF])
descriptors = st.tuples(words, words, st.integers(0, 7), st.integers(0, 9))


@settings(max_examples=150)
@given(
    st.lists(descriptors, max_size=8), st.lists(descriptors, max_size=4), st.integers(0, 0xFFFF), st.binary(max_size=16)
)
def test_nothing_that_lies_in_memory_does_more_than_raise_an_error(table, indirect, index, heads):
    driver = Driver(MEMORY)
    for number, entry in enumerate(table):
        driver.describe(number, *entry)
    for number, entry in enumerate(indirect):
        driver.describe(number, *entry, table=INDIRECT_TABLE)
    MEMORY.write(AVAILABLE + 2, index.to_bytes(2, "little") + heads)
    served = queue()
    with contextlib.suppress(QueueError):
        for chain in served.available():
            assert all(MEMORY.holds(piece.gpa, piece.size) for piece in chain.readable + chain.writable)
            served.put(chain, 0)
