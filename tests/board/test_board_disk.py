"""Disks: an image that never changes under an overlay that keeps what was written, and files that are none."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sevplug.board.disk import Disk, DiskSpec, parse_disk
from sevplug.core.errors import ConfigError

SIZE = 5 * 4096 + 3 * 512
CONTENTS = bytes(index * 7 % 256 for index in range(SIZE))
ranges = st.tuples(st.integers(0, SIZE), st.integers(0, 3 * 4096)).map(
    lambda pair: (pair[0], min(pair[1], SIZE - pair[0]))
)
actions = st.lists(st.tuples(ranges, st.one_of(st.none(), st.integers(0, 255))), max_size=12)


@pytest.fixture(scope="module")
def image(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("image") / "disk.img"
    path.write_bytes(CONTENTS)
    return path


@settings(max_examples=150)
@given(actions)
def test_any_reads_and_writes_are_those_of_a_plain_array_and_the_file_stays(image, actions):
    disk, model = Disk(DiskSpec(str(image))), bytearray(CONTENTS)
    for (offset, size), fill in actions:
        if fill is None:
            assert disk.read(offset, size) == model[offset : offset + size]
        else:
            data = bytes((fill + index) % 256 for index in range(size))
            disk.write(offset, data)
            model[offset : offset + size] = data
    assert disk.read(0, SIZE) == model
    disk.close()
    assert image.read_bytes() == CONTENTS


def test_an_image_without_the_right_to_write_is_enough(image):
    image.chmod(0o444)
    disk = Disk(DiskSpec(str(image)))
    disk.write(0, b"new")
    assert disk.read(0, 4) == b"new" + CONTENTS[3:4]
    disk.close()


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("disk.img", DiskSpec("disk.img")),
        ("disk.img,readonly=on", DiskSpec("disk.img", read_only=True)),
        ("disk.img,readonly=off", DiskSpec("disk.img")),
        ("disk.img,readonly=on,readonly=no", DiskSpec("disk.img")),
        ("a,,b.img,readonly=yes", DiskSpec("a,b.img", read_only=True)),
        ("a=b", DiskSpec("a=b")),
    ],
)
def test_a_disk_is_a_file_name_and_perhaps_read_only(text, spec):
    assert parse_disk(text) == spec


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "--disk '': expected FILE[,readonly=on|off]"),
        (",readonly=on", "--disk ',readonly=on': expected FILE[,readonly=on|off]"),
        ("d,readonly", "--disk d,readonly: 'readonly' is not supported, expected readonly=on or readonly=off"),
        (
            "d,readonly=maybe",
            "--disk d,readonly=maybe: 'readonly=maybe' is not supported, expected readonly=on or readonly=off",
        ),
        ("d,format=raw", "--disk d,format=raw: 'format=raw' is not supported, expected readonly=on or readonly=off"),
        ("a\0b", "--disk 'a\\x00b': not a file name"),
        ("d,", "--disk d,: '' is not supported, expected readonly=on or readonly=off"),
    ],
)
def test_other_words_are_refused_by_name(text, message):
    with pytest.raises(ConfigError) as caught:
        parse_disk(text)
    assert str(caught.value) == message


def refusal(path: str) -> str:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(ConfigError) as caught:
        Disk(DiskSpec(path))
    assert len(os.listdir("/proc/self/fd")) == before
    return str(caught.value)


def test_what_is_no_image_is_refused_in_one_line(tmp_path):
    (tmp_path / "empty").touch()
    (tmp_path / "odd").write_bytes(bytes(513))
    os.mkfifo(tmp_path / "fifo")
    for name, text in (
        ("missing", "No such file or directory"),
        ("empty", "the file is empty, expected a raw disk image"),
        ("odd", "513 bytes, expected a multiple of 512"),
        ("fifo", "not a regular file, expected a raw disk image"),
        (".", "a directory, expected a raw disk image"),
        ("empty/x", "Not a directory"),
    ):
        path = f"{tmp_path}/{name}"
        assert refusal(path) == f"--disk {path}: {text}"
    assert refusal("/dev/zero") == "--disk /dev/zero: not a regular file, expected a raw disk image"
    assert refusal("a\0b") == "--disk 'a\\x00b': not a file name"


def test_an_image_that_may_not_be_read_is_refused(image, monkeypatch):
    def denied(*_arguments):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    # Root, who may run the tests, may read everything.
    monkeypatch.setattr("sevplug.board.disk.os.open", denied)
    assert refusal(str(image)) == f"--disk {image}: Permission denied"
