"""A matrix file: which cells it makes, and what is refused in one line that names file and key."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sevplug.core.errors import ConfigError
from sevplug.matrix.file import CELLS_MAX, parse_matrix
from sevplug.matrix.values import Cell, Expectation

LABELS = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=6)


def cells(text: str) -> tuple[Cell, ...]:
    return parse_matrix(text.encode(), "m.toml", "/folder")


def words(text: str) -> list[tuple[str, ...]]:
    return [cell.words for cell in cells(text)]


def names(text: str) -> list[str]:
    return [cell.name for cell in cells(text)]


def refused(text: str | bytes) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_matrix(text if isinstance(text, bytes) else text.encode(), "m.toml", "/folder")
    assert "\n" not in str(caught.value)
    return str(caught.value)


# -- axes --------------------------------------------------------------------------------------------------------------


def test_the_cells_are_the_product_of_the_axes_in_the_files_order() -> None:
    text = """
        [axes]
        firmware = ["", "images/OVMF.fd", ["code.fd", "vars.fd"]]
        plugins = [[], "no:sev"]
    """
    assert names(text) == [
        "no-firmware/default-plugins",
        "no-firmware/no:sev",
        "OVMF.fd/default-plugins",
        "OVMF.fd/no:sev",
        "code.fd/default-plugins",
        "code.fd/no:sev",
    ]
    assert words(text) == [
        (),
        ("-P", "no:sev"),
        ("--bios", "images/OVMF.fd"),
        ("--bios", "images/OVMF.fd", "-P", "no:sev"),
        ("--pflash", "code.fd", "--pflash", "vars.fd"),
        ("--pflash", "code.fd", "--pflash", "vars.fd", "-P", "no:sev"),
    ]
    assert cells(text)[3].labels == {"firmware": "OVMF.fd", "plugins": "no:sev"}
    assert cells(text)[0].folder == "/folder"


def test_a_table_labels_its_values() -> None:
    text = """
        [axes.kernel]
        none = ""
        debian = { file = "vmlinuz", initrd = "initrd", append = "console=ttyS0 quiet" }
        [axes.options]
        plain = []
        two = ["--cpu", "EPYC-Milan"]
    """
    assert names(text) == ["none/plain", "none/two", "debian/plain", "debian/two"]
    debian = ("--kernel", "vmlinuz", "--initrd", "initrd", "--append", "console=ttyS0 quiet")
    assert words(text) == [(), ("--cpu", "EPYC-Milan"), debian, (*debian, "--cpu", "EPYC-Milan")]


def test_options_may_be_written_as_in_a_shell_and_have_several_axes() -> None:
    text = """
        [axes]
        options = ["--append 'a b'", []]
        options-memory = { small = ["-m", "64M"] }
    """
    assert words(text) == [("--append", "a b", "-m", "64M"), ("-m", "64M")]
    assert names(text) == ["--append 'a b'/small", "default-options/small"]


def test_files_of_one_name_are_labelled_by_their_paths() -> None:
    assert names('axes.firmware = ["old/OVMF.fd", "new/OVMF.fd"]') == ["old/OVMF.fd", "new/OVMF.fd"]


@settings(max_examples=30)
@given(st.lists(st.lists(LABELS, min_size=1, max_size=4, unique=True), min_size=1, max_size=3))
def test_every_combination_is_there_once(axes: list[list[str]]) -> None:
    tables = "\n".join(
        f"[axes.options-{number}]\n" + "\n".join(f'{json.dumps(label)} = ["{label}"]' for label in labels)
        for number, labels in enumerate(axes)
    )
    assert words(tables) == list(itertools.product(*axes))
    assert names(tables) == ["/".join(labels) for labels in itertools.product(*axes)]


# -- settings ----------------------------------------------------------------------------------------------------------


def test_defaults_surround_the_words_of_the_axes() -> None:
    text = """
        axes.options = [["--seed", "1"]]
        [defaults]
        timeout = 2.5
        memory = 64
        arguments = ["--append", "x"]
        expect = { result = ["panic", "hang"], serial = "one", not-serial = ["two", "three"] }
    """
    (cell,) = cells(text)
    assert cell.words == ("-m", "64M", "--append", "x", "--seed", "1")
    assert cell.timeout == 2.5
    assert cell.expected == Expectation(None, frozenset({"panic", "hang"}), ("one",), ("two", "three"))


@pytest.mark.parametrize(
    ("expect", "statuses", "results"),
    [
        ("{}", {0}, None),
        ("{ status = 3 }", {3}, None),
        ("{ status = [1, 2] }", {1, 2}, None),
        ('{ result = "panic" }', None, {"panic"}),
        ('{ result = "panic", status = 1 }', {1}, {"panic"}),
    ],
)
def test_without_another_expectation_a_guest_has_to_end_in_order(
    expect: str, statuses: set[int] | None, results: set[str] | None
) -> None:
    (cell,) = cells(f"axes.options = [[]]\n[defaults]\nexpect = {expect}")
    assert cell.expected.statuses == statuses
    assert cell.expected.results == results


# -- exclude and include -----------------------------------------------------------------------------------------------

TWO_BY_TWO = """
    [axes.firmware]
    none = ""
    ovmf = "OVMF.fd"
    [axes.options]
    sev = []
    plain = ["-P", "no:sev"]
    [defaults]
    timeout = 10
    expect.serial = "done"
"""


def test_an_exclude_takes_all_cells_away_that_have_its_labels() -> None:
    assert names(TWO_BY_TWO + '[[exclude]]\nfirmware = "ovmf"') == ["none/sev", "none/plain"]
    exclude = '[[exclude]]\nfirmware = "ovmf"\noptions = "plain"'
    assert names(TWO_BY_TWO + exclude) == ["none/sev", "none/plain", "ovmf/sev"]
    assert names(TWO_BY_TWO + '[[exclude]]\noptions = ["plain"]\nfirmware = ["none", "ovmf"]') == [
        "none/sev",
        "ovmf/sev",
    ]


def test_an_include_without_a_name_changes_the_cells_that_it_selects() -> None:
    include = """
        [[include]]
        firmware = "ovmf"
        timeout = 99
        memory = "1G"
        arguments = ["--seed", "3"]
        expect = { status = 4 }
    """
    none_sev, none_plain, ovmf_sev, ovmf_plain = cells(TWO_BY_TWO + include)
    assert (none_sev.timeout, none_sev.words) == (10, ())
    assert none_plain.expected == Expectation(frozenset({0}), None, ("done",))
    assert ovmf_sev.words == ("-m", "1G", "--bios", "OVMF.fd", "--seed", "3")
    assert ovmf_plain.words == ("-m", "1G", "--bios", "OVMF.fd", "-P", "no:sev", "--seed", "3")
    assert ovmf_plain.timeout == 99
    assert ovmf_plain.expected == Expectation(frozenset({4}), None, ("done",))


def test_an_include_with_a_name_is_a_cell_of_its_own() -> None:
    include = """
        [[include]]
        name = "one more"
        firmware = "ovmf"
        options = ["--seed", "3"]
        kernel = "vmlinuz"
        expect.result = "refused"
    """
    *_, last = cells(TWO_BY_TWO + include)
    assert last.name == "one more"
    assert last.words == ("--bios", "OVMF.fd", "--seed", "3", "--kernel", "vmlinuz")
    assert last.labels == {"firmware": "ovmf"}
    assert last.expected == Expectation(None, frozenset({"refused"}), ("done",))


def test_a_file_may_have_nothing_but_cells_of_their_own() -> None:
    assert names('[[include]]\nname = "a"\n[[include]]\nname = "b"') == ["a", "b"]


# -- what is refused ---------------------------------------------------------------------------------------------------

AXIS = "axes.options = [[]]\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "m.toml: no cell, expected [axes], or an [[include]] with a name"),
        ("axes = {}", "m.toml: no cell, expected [axes], or an [[include]] with a name"),
        ("axes", "m.toml: Expected '=' after a key in a key/value pair (at end of document), expected TOML"),
        (b"\xff", "m.toml: not UTF-8, expected TOML"),
        ("a = " + "[" * 100_000, "m.toml: nested too deeply, expected a matrix"),
        ("axis = 1", "m.toml: axis: unknown key, expected axes, defaults, exclude, include"),
        ("axes = 1", "m.toml: axes: found an integer, expected a table"),
        (
            "axes.bios = ['x']",
            "m.toml: axes.bios: unknown axis, expected firmware, kernel, options, plugins, options-NAME",
        ),
        ("axes.firmware = []", "m.toml: axes.firmware: no value, expected at least one value"),
        (
            "axes.firmware = 'x'",
            "m.toml: axes.firmware: found a string, expected an array of values, or a table of values by their labels",
        ),
        (
            "axes.firmware = [true]",
            "m.toml: axes.firmware[0]: found a boolean, expected a file name, "
            "or an array of two: the firmware's code and its variables",
        ),
        (
            "axes.firmware = [['a', 'b', 'c']]",
            "m.toml: axes.firmware[0]: 3 files, expected the firmware's code and its variables",
        ),
        (
            "axes.firmware = ['a', 'a']",
            "m.toml: axes.firmware[1]: the same as one before it, expected another, or a table that labels them",
        ),
        (
            "axes.kernel = [1.5]",
            "m.toml: axes.kernel[0]: found a float, expected a file name, or a table with file, initrd, append",
        ),
        ("axes.kernel.a = { initrd = 'x' }", "m.toml: axes.kernel.a: no key of that name, expected file"),
        (
            "axes.kernel.a = { file = 'x', bios = 'y' }",
            "m.toml: axes.kernel.a.bios: unknown key, expected file, initrd, append",
        ),
        (
            "axes.options = [['a', 1]]",
            "m.toml: axes.options[0][1]: found an integer, expected a string, as a word of sevplug run is",
        ),
        ('axes.options = ["a \'b"]', "m.toml: axes.options[0]: No closing quotation, expected words as in a shell"),
        (
            "axes.options = [2020-01-01]",
            "m.toml: axes.options[0]: found a date or time, expected an array of words, or a string that holds them",
        ),
        (r'axes.options = [["a\u0000"]]', "m.toml: axes.options[0][0]: a NUL character, expected a string without it"),
        ("axes.plugins = [{}]", "m.toml: axes.plugins[0]: found a table, expected a word of -P"),
        (
            r'axes.options."a\nb" = []',
            r"m.toml: axes.options.'a\nb': nothing, or a character that cannot be shown, expected a name",
        ),
        (
            AXIS + "defaults.timout = 1",
            "m.toml: defaults.timout: unknown key, expected timeout, memory, arguments, expect",
        ),
        (AXIS + "defaults.timeout = '1'", "m.toml: defaults.timeout: found a string, expected a number of seconds"),
        (AXIS + "defaults.timeout = 0", "m.toml: defaults.timeout: out of range, expected 0.001 to 1000000 seconds"),
        (AXIS + "defaults.timeout = nan", "m.toml: defaults.timeout: out of range, expected 0.001 to 1000000 seconds"),
        (
            AXIS + "defaults.memory = true",
            'm.toml: defaults.memory: found a boolean, expected a size such as "256M", or MiB as an integer',
        ),
        (AXIS + "defaults.arguments = 'x'", "m.toml: defaults.arguments: found a string, expected an array"),
        (
            AXIS + "defaults.expect.exit = 1",
            "m.toml: defaults.expect.exit: unknown key, expected status, result, serial, not-serial",
        ),
        (
            AXIS + "defaults.expect.status = 256",
            "m.toml: defaults.expect.status: out of range, expected an integer from 0 to 255",
        ),
        (
            AXIS + "defaults.expect.serial = [1]",
            "m.toml: defaults.expect.serial[0]: found an integer, expected a string",
        ),
        (
            AXIS + "defaults.expect.result = []",
            "m.toml: defaults.expect.result: an empty array, expected at least one value",
        ),
        (AXIS + "exclude = {}", "m.toml: exclude: found a table, expected an array"),
        (AXIS + "exclude = [{}]", "m.toml: exclude[0]: no axis, expected at least one of options"),
        (AXIS + "exclude = [{ kernel = 'x' }]", "m.toml: exclude[0].kernel: unknown key, expected options"),
        (
            AXIS + "exclude = [{ options = 'x' }]",
            "m.toml: exclude[0].options: unknown word, expected one of default-options",
        ),
        (
            AXIS + "include = [{ options = 'default-options', nam = 'x' }]",
            "m.toml: include[0].nam: unknown key, expected options, timeout, memory, arguments, expect",
        ),
        (
            TWO_BY_TWO + "[[exclude]]\noptions = 'sev'\n[[include]]\noptions = 'sev'\ntimeout = 1",
            "m.toml: include[0]: no cell matches, expected labels of a cell that is not excluded, "
            "or a name for a cell of its own",
        ),
        (
            "include = [{ name = 'x', bios = 'y' }]",
            "m.toml: include[0].bios: unknown key, expected name, an axis, timeout, memory, arguments, expect",
        ),
        ("include = [{ name = 1 }]", "m.toml: include[0].name: found an integer, expected a string"),
        ("include = [{ name = 'x' }, { name = 'x' }]", "m.toml: two cells are named x, expected other labels or names"),
    ],
)
def test_what_is_no_matrix_is_refused(text: str | bytes, message: str) -> None:
    assert refused(text) == message


def test_an_unknown_result_is_told_the_words() -> None:
    message = refused(AXIS + "defaults.expect.result = 'crash'")
    assert message.startswith("m.toml: defaults.expect.result: unknown word, expected one of shutdown, reset, ")


def test_a_product_that_is_too_large_is_not_made() -> None:
    axis = json.dumps([[str(number)] for number in range(200)])
    text = "[axes]\n" + "".join(f"options-{number} = {axis}\n" for number in range(4))
    assert refused(text) == f"m.toml: axes: a product that is larger, expected at most {CELLS_MAX} cells"


KEYS = st.sampled_from(["firmware", "kernel", "options", "plugins", "name", "expect", "x"])
VALUES = st.recursive(
    st.integers() | st.booleans() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner),
    max_leaves=8,
)


@settings(max_examples=60)
@given(VALUES, st.sampled_from(["axes", "defaults", "exclude", "include"]))
def test_any_document_is_a_matrix_or_is_refused_in_one_line(value: object, key: str) -> None:
    """TOML's inline values are nearly JSON's; where they are not, that is one more bad document."""
    text = f"{key} = {_toml(value)}\n" + ("" if key == "axes" else AXIS)
    try:
        assert all(isinstance(word, str) for cell in cells(text) for word in cell.words)
    except ConfigError:
        assert refused(text).startswith("m.toml: ")


def _toml(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_toml(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False)
