"""The transport keys and the files they come in."""

from pathlib import Path

import pytest

from sevplug.sevapi.errors import FormatError, SevApiError
from sevplug.sevapi.keys import TransportKeys, read_key

KEY = b"sixteen byte key"


def test_keys_are_not_in_the_repr() -> None:
    text = repr(TransportKeys(tek=KEY, tik=b"another 16 bytes"))
    assert text == "TransportKeys()"


@pytest.mark.parametrize("size", [0, 15, 17, 32])
def test_keys_of_another_length_are_refused_without_showing_them(size: int) -> None:
    with pytest.raises(FormatError) as refused:
        TransportKeys(tek=KEY, tik=b"k" * size)
    assert str(refused.value) == f"tik: expected 16 bytes, found {size}"


def test_a_key_that_is_no_bytes_is_refused_without_showing_it() -> None:
    with pytest.raises(TypeError) as refused:
        TransportKeys(tek="sixteen byte key", tik=KEY)  # type: ignore[arg-type]
    assert str(refused.value) == "tek: expected bytes, found str"


def test_a_key_is_read_from_its_file(tmp_path: Path) -> None:
    file = tmp_path / "tik.bin"
    file.write_bytes(KEY)
    assert read_key(file, "tik") == KEY


@pytest.mark.parametrize(("content", "found"), [(b"", "0 bytes"), (KEY[1:], "15 bytes"), (KEY + b"\n", "more")])
def test_a_key_file_of_the_wrong_size_is_refused_in_one_line(tmp_path: Path, content: bytes, found: str) -> None:
    file = tmp_path / "tik.bin"
    file.write_bytes(content)
    with pytest.raises(FormatError) as refused:
        read_key(file, "tik")
    assert str(refused.value) == f"tik: {file}: expected 16 bytes, found {found}"


def test_a_missing_key_file_is_refused_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "none.bin"
    with pytest.raises(SevApiError) as refused:
        read_key(file, "tek")
    assert str(refused.value) == f"tek: {file}: No such file or directory"


def test_a_directory_and_an_impossible_name_are_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(SevApiError, match=f"^tek: {tmp_path}: Is a directory$"):
        read_key(tmp_path, "tek")
    with pytest.raises(SevApiError, match=r"^tek: .*: not a file name$"):
        read_key("a\0b", "tek")


def test_an_endless_file_is_refused_and_not_read_to_its_end() -> None:
    with pytest.raises(FormatError, match="tik: /dev/zero: expected 16 bytes, found more"):
        read_key("/dev/zero", "tik")
