"""``-object sev-emulated``: each property, and the one line that each bad one ends in."""

from __future__ import annotations

from pathlib import Path

import pytest

from sevplug.core.config import ObjectSpec
from sevplug.core.errors import ConfigError
from sevplug.plugins.sev_object import DEFAULT_SPEC, parse

GOOD = {"cbitpos": "47", "reduced-phys-bits": "1"}
WHERE = "object sev-emulated (id=sev0)"


def spec(**properties: str) -> ObjectSpec:
    given = {key.replace("_", "-"): value for key, value in properties.items()}
    return ObjectSpec("sev-emulated", "sev0", {**GOOD, **given})


def refusal(of: ObjectSpec) -> str:
    with pytest.raises(ConfigError) as refused:
        parse(of)
    return str(refused.value)


def test_the_seeds_object_is_understood(tmp_path: Path) -> None:
    tik, tek = tmp_path / "tik.bin", tmp_path / "tek.bin"
    tik.write_bytes(b"T" * 16)
    tek.write_bytes(b"E" * 16)
    found = parse(spec(tik=str(tik), tek=str(tek), policy="0x1", kernel_hashes="on"))
    assert (found.id, found.c_bit, found.reduced_bits, int(found.policy)) == ("sev0", 47, 1, 1)
    assert (found.keys.tik, found.keys.tek) == (b"T" * 16, b"E" * 16)
    assert found.kernel_hashes
    assert found.defaulted_keys == ()


def test_without_an_object_the_c_bit_is_51_and_the_keys_are_zeros() -> None:
    default = parse(DEFAULT_SPEC)
    assert (default.c_bit, default.reduced_bits, int(default.policy)) == (51, 1, 1)
    assert default.keys.tik == default.keys.tek == bytes(16)
    assert default.defaulted_keys == ("tik", "tek")
    assert not default.kernel_hashes


def test_the_policy_is_nodbg_unless_it_is_given() -> None:
    assert int(parse(spec()).policy) == 1
    assert int(parse(spec(policy="0")).policy) == 0


@pytest.mark.parametrize(("text", "value"), [("47", 47), ("0x2f", 47), ("40", 40), ("51", 51)])
def test_numbers_are_decimal_or_hexadecimal(text: str, value: int) -> None:
    assert parse(spec(cbitpos=text)).c_bit == value


@pytest.mark.parametrize(("word", "value"), [("on", True), ("yes", True), ("off", False), ("no", False)])
def test_kernel_hashes_is_a_switch(word: str, value: bool) -> None:
    assert parse(spec(kernel_hashes=word)).kernel_hashes is value


@pytest.mark.parametrize("name", ["tik", "tek"])
def test_a_missing_key_is_zeros_and_is_remembered_as_such(tmp_path: Path, name: str) -> None:
    key = tmp_path / "key.bin"
    key.write_bytes(b"K" * 16)
    other = {"tik": "tek", "tek": "tik"}[name]
    found = parse(spec(**{other: str(key)}))
    assert getattr(found.keys, name) == bytes(16)
    assert getattr(found.keys, other) == b"K" * 16
    assert found.defaulted_keys == (name,)


INSIDE = " (bits below 40 belong to guest-physical addresses)"


@pytest.mark.parametrize(
    ("properties", "text"),
    [
        ({"cbitpos": "39"}, f"cbitpos=39: expected 40 to 51{INSIDE}"),
        ({"cbitpos": "52"}, f"cbitpos=52: expected 40 to 51{INSIDE}"),
        ({"cbitpos": "-47"}, f"cbitpos=-47: expected 40 to 51{INSIDE}"),
        ({"cbitpos": "many"}, "cbitpos=many: expected 40 to 51"),
        ({"cbitpos": ""}, "cbitpos=: expected 40 to 51"),
        ({"reduced_phys_bits": "0"}, "reduced-phys-bits=0: expected 1 to 63"),
        ({"reduced_phys_bits": "64"}, "reduced-phys-bits=64: expected 1 to 63"),
        ({"reduced_phys_bits": "1.5"}, "reduced-phys-bits=1.5: expected 1 to 63"),
        ({"policy": "-1"}, "policy=-1: expected a number from 0 to 0xffffffff"),
        ({"policy": "0x100000000"}, "policy=0x100000000: expected a number from 0 to 0xffffffff"),
        ({"policy": "open"}, "policy=open: expected a number from 0 to 0xffffffff"),
        ({"policy": "0x5"}, "policy 0x5 asks for SEV-ES, which is not emulated"),
        ({"policy": "4"}, "policy 0x4 asks for SEV-ES, which is not emulated"),
        ({"kernel_hashes": "maybe"}, "kernel-hashes=maybe: expected on or off"),
        ({"kernel_hashes": ""}, "kernel-hashes=: expected on or off"),
    ],
)
def test_a_bad_value_is_refused_with_what_was_expected(properties: dict[str, str], text: str) -> None:
    assert refusal(spec(**properties)) == f"{WHERE}: {text}"


@pytest.mark.parametrize(
    ("name", "expected"), [("cbitpos", "expected 40 to 51"), ("reduced-phys-bits", "expected 1 to 63")]
)
def test_what_qemu_demands_has_no_default(name: str, expected: str) -> None:
    properties = {key: value for key, value in GOOD.items() if key != name}
    assert refusal(ObjectSpec("sev-emulated", "sev0", properties)) == f"{WHERE}: property {name} is missing: {expected}"


def test_an_unknown_property_is_refused_as_qemu_refuses_it() -> None:
    assert refusal(spec(cert_chain="x")) == "Property 'sev-emulated.cert-chain' not found"


@pytest.mark.parametrize("name", ["tik", "tek"])
def test_a_key_of_another_length_is_refused_without_its_bytes(tmp_path: Path, name: str) -> None:
    key = tmp_path / "key.bin"
    for data, found in ((b"", "0 bytes"), (b"SECRETKEY", "9 bytes"), (b"SECRETKEY" * 4, "more")):
        key.write_bytes(data)
        text = refusal(spec(**{name: str(key)}))
        assert text == f"{WHERE}: {name}: {key}: expected 16 bytes, found {found}"
        assert "SECRETKEY" not in text


@pytest.mark.parametrize("name", ["tik", "tek"])
def test_a_key_file_that_is_not_there_is_named(tmp_path: Path, name: str) -> None:
    path = tmp_path / "absent.bin"
    assert refusal(spec(**{name: str(path)})) == f"{WHERE}: {name}: {path}: No such file or directory"


def test_a_key_is_in_no_repr(tmp_path: Path) -> None:
    key = tmp_path / "key.bin"
    key.write_bytes(b"SIXTEENBYTESKEY!")
    found = parse(spec(tik=str(key), tek=str(key)))
    for text in (repr(found), str(found), repr(found.keys), str(found.keys)):
        assert "SIXTEEN" not in text
