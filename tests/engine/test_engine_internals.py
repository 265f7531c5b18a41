"""The table of the engine's internals: whatever does not fit is refused with one line."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

import pytest
from machines import machine_with, run_guest

from sevplug.core.engine import internals, library
from sevplug.core.errors import EngineError


def refusal() -> str:
    """The one line that making a machine ends in."""
    with pytest.raises(EngineError) as caught, machine_with(None):
        pytest.fail("the machine was made")
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.fixture
def fresh_library() -> Iterator[None]:
    library.load.cache_clear()
    yield
    library.load.cache_clear()


def test_the_table_fits_the_library_that_is_installed() -> None:
    assert run_guest("out 0xf4, al; hlt").result.result == "shutdown"


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        # Each points at something that cannot hold what is expected, whatever the addresses of this process are.
        ("ENV_HANDLE", internals.EFLAGS),
        ("UC_NO_EXIT_REQUEST", internals.UC_INIT_DONE),
        ("UC_INIT_DONE", internals.UC_NO_EXIT_REQUEST),
        ("CPU_HANDLE", internals.CPU_CLASS),
        ("CLASS_DEBUG_HANDLER", internals.CLASS_DEBUG_HANDLER + 8),
        ("TLB_MASKS", internals.TLB_MASKS + 8),
        ("TLB_MODES", internals.TLB_MODES - 8),
        # The byte of a pointer that is never zero in an address of user space.
        ("CPU_SINGLE_STEP", internals.CPU_HANDLE + 5),
    ],
)
def test_an_offset_that_is_wrong_is_noticed(monkeypatch: pytest.MonkeyPatch, name: str, wrong: int) -> None:
    monkeypatch.setattr(internals, name, wrong)
    assert "unicorn 2.1.4" in refusal()


def test_a_handle_without_a_cpu_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    # Jump buffers, which are zero until the first run.
    monkeypatch.setattr(internals, "UC_CPU", internals.UC_NO_EXIT_REQUEST + 0x106)
    assert "(no CPU)" in refusal()


@pytest.mark.parametrize("what", [name for name, _offset, _value in internals._FRESH])
def test_each_value_of_a_new_cpu_is_checked(monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    table = tuple((name, offset, value ^ 0x100 if name == what else value) for name, offset, value in internals._FRESH)
    monkeypatch.setattr(internals, "_FRESH", table)
    text = refusal()
    assert what in text
    assert "unicorn 2.1.4" in text


def test_another_release_is_refused_by_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    class Other:
        def __init__(self) -> None:
            self._real = library.load()

        def __getattr__(self, name: str) -> object:
            return getattr(self._real, name)

        def uc_version(self, _major: object, _minor: object) -> int:
            return 0x02010300

    other = Other()
    monkeypatch.setattr(library, "load", lambda: other)
    assert "0x2010300" in refusal()


@pytest.mark.usefixtures("fresh_library")
def test_a_missing_unicorn_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "unicorn" else real(name, *rest)
    )
    assert refusal() == "the CPU engine is missing: expected the package unicorn 2.1.4"


@pytest.mark.usefixtures("fresh_library")
def test_a_unicorn_without_its_library_is_one_clear_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    class Spec:
        submodule_search_locations = (str(tmp_path_factory.mktemp("unicorn")),)

    monkeypatch.setattr(importlib.util, "find_spec", lambda _name, *_rest: Spec())
    assert "expected libunicorn in" in refusal()


@pytest.mark.usefixtures("fresh_library")
def test_a_library_that_is_none_is_one_clear_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("unicorn")
    (folder / "lib").mkdir()
    (folder / "lib" / "libunicorn.so.2").write_bytes(b"not a library")

    class Spec:
        submodule_search_locations = (str(folder),)

    monkeypatch.setattr(importlib.util, "find_spec", lambda _name, *_rest: Spec())
    assert "cannot be used" in refusal()
