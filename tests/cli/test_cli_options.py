"""QEMU's little languages, parsed."""

from __future__ import annotations

import pytest

from sevplug.cli import options
from sevplug.cli.options import Field
from sevplug.core.config import ObjectSpec
from sevplug.core.errors import ConfigError

MIB = 1 << 20


def refusal(call, *arguments: object) -> str:
    with pytest.raises(ConfigError) as caught:
        call(*arguments)
    return str(caught.value)


def test_two_commas_stand_for_one():
    assert options.split_list("a=x,,y,b=,,z,,,,w") == [Field("a", "x,y"), Field("b", ",z,,w")]


def test_three_commas_are_one_comma_and_a_separator():
    assert options.split_list("a=x,,,b=y") == [Field("a", "x,"), Field("b", "y")]


def test_a_trailing_comma_ends_the_list():
    assert options.split_list("a=1,") == [Field("a", "1")]


def test_only_the_first_equals_sign_separates():
    assert options.split_list("a=b=c") == [Field("a", "b=c")]


def test_the_last_value_of_a_key_wins():
    assert options.key_values("-machine", "a=1,b=2,a=3") == {"a": "3", "b": "2"}


def test_a_bare_first_word_is_the_implied_key():
    assert options.key_values("-machine", "pc,a=1", "type") == {"type": "pc", "a": "1"}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("pc,foo", "-machine pc,foo: Expected '=' after parameter 'foo'"),
        ("a=1,=2", "-machine a=1,=2: element 2 has no name, expected NAME=VALUE"),
        ("", "-machine : element 1 has no name, expected NAME=VALUE"),
    ],
)
def test_a_malformed_list_is_refused(text: str, line: str):
    assert refusal(options.key_values, "-machine", text, "type") == line


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("256", 256 * MIB),
        ("256M", 256 * MIB),
        ("256m", 256 * MIB),
        ("1G", 1024 * MIB),
        ("1.5G", 1536 * MIB),
        ("0.5G", 512 * MIB),
        ("2048k", 2 * MIB),
        ("1048576b", MIB),
        ("1048577b", MIB + 4096),
        ("64G", 65536 * MIB),
    ],
)
def test_memory_sizes_are_in_mib_unless_a_suffix_says_otherwise(text: str, size: int):
    assert options.parse_memory("-m", text) == size


@pytest.mark.parametrize("text", ["", "M", "12x", "-1", "1e3", "0x10", "1.G", ".5G", "1 G", "\u0661", "9" * 50])
def test_what_is_no_size_is_refused(text: str):
    assert refusal(options.parse_memory, "-m", text) == (
        f"-m {text}: expected a size, such as 256M (suffixes b, k, M, G, T, P, E)"
    )


@pytest.mark.parametrize(("text", "size"), [("0", 0), ("1023k", 1023 << 10), ("65G", 65 << 30)])
def test_memory_outside_the_limits_is_refused(text: str, size: int):
    assert refusal(options.parse_memory, "-m", text) == f"-m {text}: {size} bytes of memory, expected 1M to 64G"


def test_a_size_of_more_than_64_bits_is_refused():
    assert refusal(options.parse_size, "-m", "16E") == "-m 16E: expected a size below 2^64"


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "1e400", "", "1s", "0.0"])
def test_a_time_out_is_a_positive_number(text: str):
    line = f"--timeout {text}: expected a number of seconds above 0"
    assert refusal(options.parse_seconds, "--timeout", text) == line


def test_a_time_out_may_have_a_fraction():
    assert options.parse_seconds("--timeout", "0.25") == 0.25


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("stdio", "stdio"),
        ("stdio,signal=on", "stdio,signal=on"),
        ("null", "null"),
        ("none", "null"),
        ("file:/a,b", "file:/a,b"),
        ("unix:/run/s", "unix:/run/s"),
        ("tcp:127.0.0.1:0,wait=on", "tcp:127.0.0.1:0,wait=on"),
    ],
)
def test_the_serial_port_goes_to_a_place_that_is_known(text: str, value: str):
    assert options.parse_serial("--serial", text) == value


@pytest.mark.parametrize("text", ["file:", "mon:stdio", "pty", "", "vc", "stdio,signal=off"])
def test_another_place_for_the_serial_port_is_refused(text: str):
    assert refusal(options.parse_serial, "-serial", text) == (
        f"-serial {text}: not supported, expected stdio, null, file:PATH, unix:PATH or tcp:127.0.0.1:PORT"
    )


def test_the_address_of_a_serial_port_is_checked():
    assert refusal(options.parse_serial, "--serial", "tcp:10.0.0.1:1").startswith(
        "--serial tcp:10.0.0.1:1: 10.0.0.1, expected a loopback address"
    )


@pytest.mark.parametrize("text", ["file:", "unix:/x", "pty", "", "stdio,signal=on"])
def test_a_port_that_only_sends_goes_to_one_of_three_places(text: str):
    assert options.parse_output("-debugcon", "none") == "null"
    assert refusal(options.parse_output, "-debugcon", text) == (
        f"-debugcon {text}: not supported, expected stdio, null or file:PATH"
    )


def test_an_object_keeps_its_properties_as_text():
    text = "sev-emulated,id=sev0,cbitpos=47,reduced-phys-bits=1,tik=a,,b,policy=0x1,kernel-hashes=on"
    spec = options.parse_object("-object", text)
    assert spec == ObjectSpec(
        "sev-emulated",
        "sev0",
        {"cbitpos": "47", "reduced-phys-bits": "1", "tik": "a,b", "policy": "0x1", "kernel-hashes": "on"},
    )


def test_an_object_may_be_written_as_json():
    text = '{"qom-type": "sev-emulated", "id": "sev0", "cbitpos": 47, "kernel-hashes": true}'
    expected = ObjectSpec("sev-emulated", "sev0", {"cbitpos": "47", "kernel-hashes": "on"})
    assert options.parse_object("-object", text) == expected


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("sev-emulated,cbitpos=47", "-object sev-emulated: Parameter 'id' is missing"),
        ("id=a", "-object: Parameter 'qom-type' is missing"),
        ("", "-object: element 1 has no name, expected NAME=VALUE"),
        ("sev-emulated,id=a,", None),
        (
            "sev-emulated,id=1a",
            "-object sev-emulated: Parameter 'id' expects an identifier, found '1a'",
        ),
        ("sev-emulated,id=a,tik=x,tik=y", "-object sev-emulated: tik is given twice"),
        ("sev-emulated,id=a,tik", "-object sev-emulated: Expected '=' after parameter 'tik'"),
        ("sev-emulated,id=a,=x", "-object sev-emulated: element 3 has no name, expected NAME=VALUE"),
        ("{", "-object: the object in JSON cannot be parsed"),
        ('{"a":' * 100_000, "-object: the object in JSON cannot be parsed"),
        ('{"qom-type": "t", "id": []}', "-object: Parameter 'id' expects a string, a number or a boolean"),
    ],
)
def test_a_malformed_object_is_refused(text: str, line: str | None):
    if line is None:
        assert options.parse_object("-object", text).id == "a"
    else:
        assert refusal(options.parse_object, "-object", text) == line


def test_a_refused_object_does_not_show_its_keys():
    text = "sev-emulated,id=a,tik=0123456789abcdef,tek=fedcba9876543210,nonsense"
    assert "0123456789abcdef" not in refusal(options.parse_object, "-object", text)


def test_two_objects_of_one_id_are_refused():
    texts = ["sev-emulated,id=a", "rng,id=a"]
    assert refusal(options.parse_objects, "-object", texts) == "-object rng: Duplicate ID 'a' for object"


SEV0 = ObjectSpec("sev-emulated", "sev0")
SEV1 = ObjectSpec("sev-emulated", "sev1")


@pytest.mark.parametrize("name", options.REFERENCES)
def test_either_spelling_refers_to_an_object(name: str):
    options.check_references("-object", "-machine", [SEV0], {name: "sev0"})


@pytest.mark.parametrize(
    ("objects", "machine", "line"),
    [
        ([SEV0], {"memory-encryption": "sev9"}, "No such memory encryption object 'sev9'"),
        ([SEV0], {"confidential-guest-support": "sev9"}, "Device 'sev9' not found"),
        (
            [SEV0],
            {},
            "-object sev-emulated,id=sev0: nothing refers to this object, expected -machine memory-encryption=sev0",
        ),
        (
            [SEV0, SEV1],
            {"memory-encryption": "sev0", "confidential-guest-support": "sev1"},
            "-machine: memory-encryption=sev0 and confidential-guest-support=sev1 name two objects, expected one",
        ),
    ],
)
def test_a_reference_and_its_object_must_meet(objects: list[ObjectSpec], machine: dict[str, str], line: str):
    assert refusal(options.check_references, "-object", "-machine", objects, machine) == line


def test_an_object_of_another_kind_needs_no_reference():
    options.check_references("-object", "-machine", [ObjectSpec("rng", "r")], {})
