"""The launch state machine of the firmware."""

import itertools

import pytest

from sevplug.sevapi.errors import FirmwareError
from sevplug.sevapi.state import Command, GuestState, PlatformState, legal_states, next_state
from sevplug.sevapi.status import Status

G = GuestState
C = Command

LEGAL = {
    (G.UNINIT, C.LAUNCH_START): G.LAUNCH_UPDATE,
    (G.LAUNCH_UPDATE, C.LAUNCH_UPDATE_DATA): G.LAUNCH_UPDATE,
    (G.LAUNCH_UPDATE, C.LAUNCH_UPDATE_VMSA): G.LAUNCH_UPDATE,
    (G.LAUNCH_UPDATE, C.LAUNCH_MEASURE): G.LAUNCH_SECRET,
    (G.LAUNCH_SECRET, C.LAUNCH_SECRET): G.LAUNCH_SECRET,
    (G.LAUNCH_SECRET, C.LAUNCH_FINISH): G.RUNNING,
    (G.LAUNCH_SECRET, C.ATTESTATION): G.LAUNCH_SECRET,
    (G.RUNNING, C.ATTESTATION): G.RUNNING,
    (G.SEND_UPDATE, C.ATTESTATION): G.SEND_UPDATE,
    (G.SENT, C.ATTESTATION): G.SENT,
}


def test_states_have_the_numbers_of_the_sev_api_and_the_names_of_qmp() -> None:
    assert [(int(state), state.qmp_name) for state in G] == [
        (0, "uninit"),
        (1, "launch-update"),
        (2, "launch-secret"),
        (3, "running"),
        (4, "send-update"),
        (5, "receive-update"),
        (6, "sent"),
    ]
    assert [(int(state), state.name) for state in PlatformState] == [
        (0, "UNINIT"),
        (1, "INIT"),
        (2, "WORKING"),
    ]


def test_launch_commands_have_the_codes_of_the_sev_api() -> None:
    assert [int(command) for command in C] == list(range(0x30, 0x37))
    assert (C.LAUNCH_START, C.LAUNCH_SECRET, C.ATTESTATION) == (0x30, 0x34, 0x36)


@pytest.mark.parametrize(("state", "command"), list(itertools.product(G, C)))
def test_each_command_in_each_state_is_either_a_known_step_or_refused(state: G, command: C) -> None:
    if (state, command) in LEGAL:
        assert state in legal_states(command)
        assert next_state(state, command) == LEGAL[state, command]
        return
    assert state not in legal_states(command)
    with pytest.raises(FirmwareError) as refused:
        next_state(state, command)
    assert refused.value.status == Status.INVALID_GUEST_STATE


def test_a_launch_goes_from_uninit_to_running() -> None:
    state = G.UNINIT
    for command in (C.LAUNCH_START, C.LAUNCH_UPDATE_DATA, C.LAUNCH_MEASURE, C.LAUNCH_SECRET, C.LAUNCH_FINISH):
        state = next_state(state, command)
    assert state == G.RUNNING


def test_a_refusal_names_the_command_the_state_and_the_states_it_needs() -> None:
    with pytest.raises(
        FirmwareError, match="LAUNCH_SECRET: the guest is in state running, the command needs launch-secret"
    ):
        next_state(G.RUNNING, C.LAUNCH_SECRET)
