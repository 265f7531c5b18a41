"""The guest policy and the API version."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sevplug.sevapi.errors import FormatError
from sevplug.sevapi.policy import Policy, PolicyBit, check
from sevplug.sevapi.status import Status
from sevplug.sevapi.version import ApiVersion

API = ApiVersion(1, 55, 24)


@pytest.mark.parametrize(
    ("value", "bit"),
    [
        (0x01, PolicyBit.NODBG),
        (0x02, PolicyBit.NOKS),
        (0x04, PolicyBit.ES),
        (0x08, PolicyBit.NOSEND),
        (0x10, PolicyBit.DOMAIN),
        (0x20, PolicyBit.SEV),
    ],
)
def test_each_flag_is_at_its_bit(value: int, bit: PolicyBit) -> None:
    policy = Policy(value)
    assert [flag for flag in PolicyBit if flag in policy] == [bit]


def test_the_lowest_api_version_is_in_the_upper_half() -> None:
    policy = Policy(0x37010001)
    assert (policy.min_api_major, policy.min_api_minor) == (1, 0x37)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0x0 (no restriction)"),
        (1, "0x1 (nodbg)"),
        (0x2D, "0x2d (nodbg, es, nosend, sev)"),
        (0x37010001, "0x37010001 (nodbg, API 1.55 or later)"),
        (0x41, "0x41 (nodbg, reserved 0x40)"),
    ],
)
def test_a_policy_can_be_read_by_people(value: int, text: str) -> None:
    assert str(Policy(value)) == text


@given(st.integers(0, 0xFFFFFFFF))
def test_a_policy_is_four_bytes_little_endian(value: int) -> None:
    assert int.from_bytes(Policy(value).to_bytes(), "little") == value == int(Policy(value))


@pytest.mark.parametrize("value", [-1, 1 << 32])
def test_a_policy_that_does_not_fit_32_bits_is_refused(value: int) -> None:
    with pytest.raises(FormatError, match="value: expected 0 to 0xffffffff, found"):
        Policy(value)


def test_a_policy_that_is_no_number_is_refused() -> None:
    with pytest.raises(TypeError, match="expected an integer, found str"):
        Policy("0x1")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "status"),
    [
        (0x00000001, Status.SUCCESS),
        (0x37010001, Status.SUCCESS),
        (0x38010001, Status.POLICY_FAILURE),
        (0x00020001, Status.POLICY_FAILURE),
        (0xFF000001, Status.SUCCESS),
        (0x00000041, Status.POLICY_FAILURE),
        (0x00008001, Status.POLICY_FAILURE),
        (0x00000004, Status.SUCCESS),
    ],
    ids=[
        "no minimum",
        "exactly this version",
        "a later minor version",
        "a later major version",
        "a high minor version of an earlier major version",
        "lowest reserved bit",
        "highest reserved bit",
        "SEV-ES is for the caller to judge",
    ],
)
def test_the_firmware_judges_version_and_reserved_bits(value: int, status: Status) -> None:
    assert check(Policy(value), API) == status


def test_an_api_version_is_three_bytes() -> None:
    assert API.to_bytes() == bytes((1, 55, 24))
    assert str(API) == "1.55 build 24"


@pytest.mark.parametrize("parts", [(256, 0, 0), (0, 256, 0), (0, 0, 256), (-1, 0, 0)])
def test_an_api_version_part_that_is_no_byte_is_refused(parts: tuple[int, int, int]) -> None:
    with pytest.raises(FormatError, match="expected 0 to 0xff"):
        ApiVersion(*parts)
