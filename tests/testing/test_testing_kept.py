"""The fixture that boots once and goes back for each test."""

from __future__ import annotations

import echoing
import pytest
from inner_runs import InnerRun

from sevplug.testing import BootOnce, KeptGuest

pytest_plugins = ["pytester"]

MIB = 1 << 20


@pytest.fixture(scope="module")
def kept(sevplug_boot_once: BootOnce) -> KeptGuest:
    """The embedded guest, at its third line."""
    return sevplug_boot_once(r"SEV is active\r\n", memory=16 * MIB)


def test_each_call_goes_back_to_the_same_moment(kept: KeptGuest) -> None:
    ends = []
    for _ in range(3):
        guest = kept()
        assert guest.output.endswith(b"SEV is active\r\n")
        guest.expect(r"private memory: holds")
        assert guest.wait().result == "shutdown"
        ends.append((guest.output, guest.machine.memory.ram_digest(), guest.machine.clock.now))
    assert ends[0] == ends[1] == ends[2]


def test_what_one_test_left_another_does_not_see(kept: KeptGuest) -> None:
    guest = kept()
    guest.expect("shared memory")
    again = kept()
    assert again is guest
    assert again.result is None
    # What the guest said on its way is said again.
    again.expect("private memory: holds")


def test_what_was_typed_is_gone(sevplug_boot_once: BootOnce) -> None:
    kept = sevplug_boot_once("ok> ", firmware=echoing.polling(), memory=16 * MIB, sev=None)
    for text in ("one", "two"):
        guest = kept()
        guest.send(text)
        guest.expect(text.upper(), timeout=20)
        guest.send("typed, and never read")
        assert guest.output.removeprefix(b"ok> ").strip() == text.upper().encode()


SUITE = """
    import pytest

    @pytest.fixture(scope="session")
    def booted(sevplug_boot_once):
        return sevplug_boot_once("SEV is active", memory=16 << 20)

    @pytest.fixture
    def guest(booted, record):
        record(booted().machine)
        return booted()

    @pytest.mark.parametrize("number", range(3))
    def test_it_begins_where_it_was(guest, number):
        guest.expect("private memory: holds")
        assert guest.wait().result == "shutdown"

    def test_it_fails_and_the_next_begins_anew(guest):
        guest.expect("Password: ")

    def test_the_next(guest):
        guest.expect("private memory: holds")
"""


def test_a_suite_boots_once_and_its_guest_is_ended_with_it(pytester: pytest.Pytester) -> None:
    run = InnerRun(pytester)
    outcomes, said = run(SUITE)
    assert outcomes == {"passed": 4, "failed": 1}
    assert "did not come before the guest ended; the last that the guest said:" in said
    assert len(run.machines) == 5
    assert len(set(map(id, run.machines))) == 1
    assert run.all_ended()
