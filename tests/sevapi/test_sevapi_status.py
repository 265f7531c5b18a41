"""The firmware's status codes, and the errors that carry them."""

import pickle

import pytest

from sevplug.sevapi.errors import FirmwareError, SevApiError
from sevplug.sevapi.status import Status, fw_error_to_str


def test_the_codes_are_those_of_the_sev_api() -> None:
    assert [int(status) for status in Status] == list(range(0x19))
    assert int(Status.INVALID_GUEST_STATE) == 2
    assert int(Status.POLICY_FAILURE) == 7
    assert int(Status.BAD_MEASUREMENT) == 0xB
    assert int(Status.SECURE_DATA_INVALID) == 0x18


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (0, ""),
        (2, "Guest state is invalid"),
        (4, "Buffer too small"),
        (0xB, "Bad measurement"),
        (0x18, "Part-specific integrity check failure"),
        (0x19, "unknown error"),
        (-1, "unknown error"),
    ],
)
def test_a_code_has_the_text_that_qemu_prints(code: int, text: str) -> None:
    assert fw_error_to_str(code) == text


def test_every_failure_has_a_text_of_its_own() -> None:
    texts = [fw_error_to_str(status) for status in Status if status != Status.SUCCESS]
    assert all(texts)
    assert len(set(texts)) == len(texts)


def test_a_firmware_error_is_one_line_with_detail_code_and_text() -> None:
    error = FirmwareError(Status.BAD_MEASUREMENT, "LAUNCH_SECRET: packet MAC: wrong")
    assert str(error) == "LAUNCH_SECRET: packet MAC: wrong (firmware status 0xb: Bad measurement)"
    assert isinstance(error, SevApiError)
    assert isinstance(error, ValueError)


def test_a_firmware_error_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(FirmwareError(Status.INVALID_LENGTH, "detail")))
    assert (error.status, error.detail) == (Status.INVALID_LENGTH, "detail")
