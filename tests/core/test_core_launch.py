"""The order of a launch: which step may follow which."""

from __future__ import annotations

import itertools

import pytest

from sevplug.core.errors import LaunchRefused
from sevplug.core.launch import Launch, LaunchRegion, LaunchSecret, LaunchState

UNINIT, UPDATE, SECRET, RUNNING = LaunchState
STEPS = ("start", "update", "measure", "secret", "finish")
LEGAL = {
    (UNINIT, "start"): UPDATE,
    (UPDATE, "update"): UPDATE,
    (UPDATE, "measure"): SECRET,
    (UPDATE, "finish"): RUNNING,
    (SECRET, "secret"): SECRET,
    (SECRET, "finish"): RUNNING,
}
ILLEGAL = [pair for pair in itertools.product(LaunchState, STEPS) if pair not in LEGAL]


def test_the_states_carry_the_names_that_query_sev_prints() -> None:
    assert [state.value for state in LaunchState] == ["uninit", "launch-update", "launch-secret", "running"]


@pytest.mark.parametrize(("state", "step"), LEGAL)
def test_a_legal_step_leads_to_its_state(state: LaunchState, step: str) -> None:
    launch = Launch(state)
    launch.check(step)
    assert launch.state is state
    launch.advance(step)
    assert launch.state is LEGAL[state, step]


@pytest.mark.parametrize(("state", "step"), ILLEGAL)
def test_an_illegal_step_is_refused_and_changes_nothing(state: LaunchState, step: str) -> None:
    launch = Launch(state)
    expected = " or ".join(sorted(legal.value for legal, name in LEGAL if name == step))
    for attempt in (launch.check, launch.advance):
        with pytest.raises(LaunchRefused) as refused:
            attempt(step)
        assert str(refused.value) == f"launch {step} is refused in state {state.value}: expected {expected}"
        assert refused.value.status is None
    assert launch.state is state


def test_a_whole_launch_goes_from_uninit_to_running() -> None:
    launch = Launch()
    seen = [launch.state]
    for step in ("start", "update", "update", "measure", "secret", "secret", "finish"):
        launch.advance(step)
        seen.append(launch.state)
    assert seen == [UNINIT, UPDATE, UPDATE, UPDATE, SECRET, SECRET, SECRET, RUNNING]


def test_two_launches_share_nothing() -> None:
    first, second = Launch(), Launch()
    first.regions.append(LaunchRegion("firmware", 0, b"x"))
    assert second.regions == []


def test_reprs_show_sizes_and_never_contents() -> None:
    launch = Launch(context="the owner's context")
    launch.regions.append(LaunchRegion("firmware", 0x1000, b"region bytes"))
    packet = LaunchSecret(header=bytes(52), payload=b"payload bytes")
    assert "context" not in repr(launch)
    assert "<12 bytes>" in repr(launch.regions[0])
    assert "region bytes" not in repr(launch)
    assert "payload bytes" not in repr(packet)
