"""Block requests (VIRTIO 1.2, section 5.2.6): what comes back, however the driver cuts them."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sevplug.board.disk import Disk, DiskSpec
from sevplug.board.virtio.block import FLUSH, GET_ID, IN, OUT, BlockBackend
from sevplug.board.virtio.queue import Buffer, Chain, QueueError
from sevplug.core.memory import GuestMemory

OK, IO_ERROR, UNSUPPORTED = 0, 1, 2
SECTORS = 16
CONTENTS = bytes(sector for sector in range(1, SECTORS + 1) for _ in range(512))
HEADER, DATA, STATUS = 0x1000, 0x2000, 0x8000
MEMORY = GuestMemory(1 << 16)


@pytest.fixture(scope="module")
def image(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("image") / "disk.img"
    path.write_bytes(CONTENTS)
    return path


@pytest.fixture
def backend(image):
    disk = Disk(DiskSpec(str(image)))
    yield BlockBackend(disk)
    disk.close()


def request(backend, kind, sector=0, outgoing=b"", incoming=0):
    """Carry one out: (status, what came back, bytes the device says it wrote)."""
    MEMORY.write(HEADER, struct.pack("<IIQ", kind, 0, sector) + outgoing)
    MEMORY.write(DATA, b"\xee" * incoming + b"\xee")
    chain = Chain(0, (Buffer(HEADER, 16 + len(outgoing)),), (Buffer(DATA, incoming + 1),))
    written = backend.serve(MEMORY, chain)
    return MEMORY.read(DATA + incoming, 1)[0], MEMORY.read(DATA, incoming), written


def test_the_configuration_tells_the_capacity_and_how_large_requests_may_be(backend):
    assert struct.unpack_from("<QIIII", backend.config) == (SECTORS, 0, 254, 0, 512)
    assert backend.features & (1 << 5) == 0


def test_sectors_are_read(backend):
    assert request(backend, IN, 3, incoming=1024) == (OK, CONTENTS[3 * 512 : 5 * 512], 1025)
    assert request(backend, IN, SECTORS - 1, incoming=512) == (OK, CONTENTS[-512:], 513)


def test_what_was_written_is_read_and_the_file_stays(backend, image):
    assert request(backend, OUT, 7, b"new" * 512)[::2] == (OK, 1)
    assert request(backend, FLUSH)[::2] == (OK, 1)
    assert (
        request(backend, IN, 6, incoming=5 * 512)[1]
        == CONTENTS[6 * 512 : 7 * 512] + b"new" * 512 + CONTENTS[-3072:-2560]
    )
    assert image.read_bytes() == CONTENTS


def test_the_disk_has_a_name(backend):
    assert request(backend, GET_ID, incoming=20) == (OK, b"sevplug-disk".ljust(20, b"\0"), 21)


@pytest.mark.parametrize(
    ("kind", "sector", "outgoing", "incoming"),
    [
        (IN, SECTORS, b"", 512),
        (IN, SECTORS - 1, b"", 1024),
        (IN, 2**64 - 1, b"", 512),
        (IN, 0, b"", 511),
        (IN, 0, b"x", 512),
        (OUT, SECTORS, bytes(512), 0),
        (OUT, 0, bytes(100), 0),
        (OUT, 0, bytes(512), 1),
    ],
)
def test_what_is_not_on_the_disk_is_an_error_and_changes_nothing(backend, kind, sector, outgoing, incoming):
    assert request(backend, kind, sector, outgoing, incoming)[0] == IO_ERROR
    assert request(backend, IN, 0, incoming=SECTORS * 512)[1] == CONTENTS


@pytest.mark.parametrize("kind", [2, 11, 13, 0xFFFF_FFFF])
def test_other_requests_are_unsupported(backend, kind):
    assert request(backend, kind)[0] == UNSUPPORTED


def test_a_read_only_disk_says_so_and_takes_no_writes(image):
    disk = Disk(DiskSpec(str(image), read_only=True))
    backend = BlockBackend(disk)
    assert backend.features & 1 << 5
    assert request(backend, OUT, 0, bytes(512))[0] == IO_ERROR
    assert request(backend, IN, 0, incoming=512)[1] == CONTENTS[:512]
    disk.close()


def test_an_image_that_shrinks_is_an_error_of_the_disk(tmp_path):
    path = tmp_path / "disk.img"
    path.write_bytes(CONTENTS)
    disk = Disk(DiskSpec(str(path)))
    os.truncate(path, 512)
    assert request(BlockBackend(disk), IN, 2, incoming=512)[0] == IO_ERROR
    assert request(BlockBackend(disk), OUT, 2, bytes(512))[0] == IO_ERROR
    assert request(BlockBackend(disk), IN, 0, incoming=512)[0] == OK
    disk.close()


@pytest.mark.parametrize(
    ("readable", "writable", "text"),
    [
        ((), (Buffer(DATA, 1),), "without its header of 16 bytes"),
        ((Buffer(HEADER, 15),), (Buffer(DATA, 1),), "without its header of 16 bytes"),
        ((Buffer(HEADER, 16),), (), "without a byte for its status"),
    ],
)
def test_what_is_no_request_is_an_error_of_the_queue(backend, readable, writable, text):
    with pytest.raises(QueueError, match=text):
        backend.serve(MEMORY, Chain(0, readable, writable))


def cut(gpa, size, places):
    """``size`` bytes from ``gpa`` on as buffers that end at ``places``."""
    ends = sorted({place for place in places if 0 < place < size} | {size})
    return tuple(Buffer(gpa + start, end - start) for start, end in zip([0, *ends], ends, strict=False))


cuts = st.lists(st.integers(1, 2100), max_size=6)


@settings(max_examples=60)
@given(cuts, cuts)
def test_a_request_may_be_cut_anywhere(image, readable, writable):
    disk = Disk(DiskSpec(str(image)))
    backend = BlockBackend(disk)
    data = bytes(index % 251 for index in range(2048))
    MEMORY.write(HEADER, struct.pack("<IIQ", OUT, 0, 5) + data)
    MEMORY.write(STATUS, b"\xee")
    backend.serve(MEMORY, Chain(0, cut(HEADER, 16 + 2048, readable), (Buffer(STATUS, 1),)))
    assert MEMORY.read(STATUS, 1) == b"\0"
    MEMORY.write(HEADER, struct.pack("<IIQ", IN, 0, 5))
    assert backend.serve(MEMORY, Chain(0, cut(HEADER, 16, readable), cut(DATA, 2049, writable))) == 2049
    assert MEMORY.read(DATA, 2049) == data + b"\0"
    disk.close()
