"""Keys on P-384."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sev_platforms import changed

from sevplug.sevapi.algorithms import Algorithm
from sevplug.sevapi.elliptic import EcPrivateKey, EcPublicKey
from sevplug.sevapi.errors import FormatError

# NIST CAVS, KAS_ECC_CDH_PrimitiveTest, P-384, COUNT = 0.
OTHERS = EcPublicKey(
    0xA7C76B970C3B5FE8B05D2838AE04AB47697B9EAF52E764592EFDA27FE7513272734466B400091ADBF2D68C58E0C50066,
    0xAC68F19F2E1CB879AED43A9969B91A0839C4C38A49749B661EFEDF243451915ED0905A32B060992B468C64766FC8437A,
)
OURS = EcPrivateKey(0x3CC3122A68F0D95027AD38C067916BA0EB8C38894D22E1B15618B6818A661774AD463B205DA88CF699AB4D43C9CF98A1)
AGREED = "5f9d29dc5e31a163060356213669c8ce132e22f57c9a04f40ba7fcead493b457e5621e766c40a2e3d4d6a04b25e533f1"
# RFC 6979, A.2.6: P-384 with SHA-256 and SHA-384, message "sample".
RFC_KEY = EcPrivateKey(
    0x6B9D3DAD2E1B8C1C05B19875B6659F4DE23C3B667BF297BA9AA47740787137D896D5724E4C70A825F872C9EA60D2EDF5
)
RFC_SIGNATURES = {
    Algorithm.ECDSA_SHA256: (
        0x21B13D1E013C7FA1392D03C5F99AF8B30C570C6F98D4EA8E354B63A21D3DAA33BDE1E888E63355D92FA2B3C36D8FB2CD,
        0xF3AA443FB107745BF4BD77CB3891674632068A10CA67E3D45DB2266FA7D1FEEBEFDC63ECCD1AC42EC0CB8668A4FA0AB0,
    ),
    Algorithm.ECDSA_SHA384: (
        0x94EDBB92A5ECB8AAD4736E56C691916B3F88140666CE9FA73D64C4EA95AD133C81A648152E44ACF96E36DD1E80FABE46,
        0x99EF4AEB15F178CEA1FE40DB2603138F130E740A19624526203B6351D0A3A94FA329C145786E679E7B82C71A38628AC8,
    ),
}


def test_key_agreement_gives_the_known_x_coordinate() -> None:
    assert OURS.shared_secret(OTHERS).hex() == AGREED


def test_both_sides_agree() -> None:
    assert RFC_KEY.shared_secret(OURS.public_key()) == OURS.shared_secret(RFC_KEY.public_key())


@pytest.mark.parametrize("algorithm", RFC_SIGNATURES)
def test_signatures_are_those_of_rfc_6979_in_little_endian(algorithm: Algorithm) -> None:
    signature = RFC_KEY.sign(b"sample", algorithm)
    assert signature == b"".join(number.to_bytes(72, "little") for number in RFC_SIGNATURES[algorithm])
    assert RFC_KEY.public_key().verify(b"sample", signature, algorithm)


def test_a_signature_is_of_one_message_key_and_hash() -> None:
    signature = RFC_KEY.sign(b"sample", Algorithm.ECDSA_SHA256)
    assert not RFC_KEY.public_key().verify(b"simple", signature, Algorithm.ECDSA_SHA256)
    assert not RFC_KEY.public_key().verify(b"sample", signature, Algorithm.ECDSA_SHA384)
    assert not OURS.public_key().verify(b"sample", signature, Algorithm.ECDSA_SHA256)


@settings(max_examples=60)
@given(st.integers(0, 143), st.integers(1, 255))
def test_a_signature_with_any_byte_changed_is_refused(position: int, change: int) -> None:
    signature = changed(RFC_KEY.sign(b"sample", Algorithm.ECDSA_SHA256), position, change)
    assert not RFC_KEY.public_key().verify(b"sample", signature, Algorithm.ECDSA_SHA256)


@settings(max_examples=60)
@given(st.integers(0, 159), st.integers(1, 255))
def test_a_public_key_with_any_byte_changed_is_refused(position: int, change: int) -> None:
    with pytest.raises(FormatError, match="public key: "):
        EcPublicKey.from_bytes(changed(OTHERS.to_bytes().ljust(160, b"\0"), position, change))


def test_a_public_key_gives_back_its_bytes() -> None:
    assert EcPublicKey.from_bytes(OTHERS.to_bytes()) == OTHERS
    assert len(OTHERS.to_bytes()) == 148


@pytest.mark.parametrize("scalar", [0, -1, 1 << 384])
def test_a_private_key_is_below_the_order_and_not_shown(scalar: int) -> None:
    with pytest.raises(FormatError, match="private key: expected a number from 1 to below the order of P-384"):
        EcPrivateKey(scalar)
    assert repr(OURS) == "EcPrivateKey()"


def test_a_point_that_is_not_on_the_curve_agrees_on_nothing() -> None:
    with pytest.raises(FormatError, match="not on the curve"):
        OURS.shared_secret(EcPublicKey(1, 1))
