"""The options of `sevplug matrix`, its exit statuses, and what it refuses."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from terminals import COMMAND, at_a_terminal

from sevplug.cli.app import run_app
from sevplug.cli.matrix_cells import matches

StandIn = Callable[[str], None]
PASSING = 'axes.options = [["--seed", "1"], ["--seed", "2"], ["--seed", "3"]]\n'
IN_ORDER = """
import json, sys
open(sys.argv[1], "w").write(json.dumps({"result": "shutdown", "detail": ""}))
"""


@pytest.fixture
def passing(tmp_path: Path) -> str:
    path = tmp_path / "passing.toml"
    path.write_text(PASSING)
    return str(path)


def test_list_runs_nothing(stand_in: StandIn, passing: str, capsys: pytest.CaptureFixture[str]) -> None:
    stand_in("raise SystemExit('run')")
    assert run_app(["matrix", passing, "--list", "-k", "NOT 2"]) == 0
    assert capsys.readouterr().out == "--seed 1  sevplug run --seed 1\n--seed 3  sevplug run --seed 3\n"


def test_all_as_expected_is_status_0(stand_in: StandIn, passing: str, capsys: pytest.CaptureFixture[str]) -> None:
    stand_in(IN_ORDER)
    assert run_app(["matrix", passing]) == 0
    assert "\n3 cells: 3 passed in " in capsys.readouterr().out


@pytest.mark.parametrize("option", ["-x", "--fail-fast"])
def test_fail_fast_ends_the_others(
    stand_in: StandIn, passing: str, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    stand_in("import sys, time; time.sleep(0 if sys.argv[3] == '2' else 60); sys.exit(4)")
    assert run_app(["matrix", passing, option, "-j", "2"]) == 1
    out = capsys.readouterr().out
    assert "\n3 cells: 1 failed, 2 skipped in " in out
    assert out.count("not run to its end") == 2


@pytest.mark.parametrize(
    ("expression", "name", "expected"),
    [
        ("ovmf", "OVMF.fd/sev", True),
        ("ovmf and plain", "OVMF.fd/sev", False),
        ("plain or ovmf and sev", "OVMF.fd/sev", True),
        ("not plain", "OVMF.fd/sev", True),
        ("not sev or plain", "OVMF.fd/sev", False),
        ("--seed 1", "--seed 1", True),
    ],
)
def test_cells_are_chosen_by_parts_of_their_names(expression: str, name: str, expected: bool) -> None:
    assert matches(expression, name) is expected


@pytest.mark.parametrize(
    ("arguments", "text", "message"),
    [
        (["-k", "nope"], PASSING, "-k nope: no cell has such a name, expected a part of one that --list shows"),
        (["-j", "0"], PASSING, "Invalid value for '-j' / '--jobs': 0 is not in the range x>=1."),
        (
            ["-j", "2", "--dask", "tcp://x:1"],
            PASSING,
            "-j, --dask: expected one of them, a cluster's workers say how much they run",
        ),
        (["--json", "{tmp}"], PASSING, "--json {tmp}: Is a directory, expected a writable file"),
        (
            ["--junit-xml", "{tmp}/no/m.xml"],
            PASSING,
            "--junit-xml {tmp}/no/m.xml: No such file or directory, expected a writable file",
        ),
        ([], "axis = 1", "{tmp}/m.toml: axis: unknown key, expected axes, defaults, exclude, include"),
        ([], "", "FILE.toml {tmp}/m.toml: the file is empty"),
        (
            [],
            "axes.options = [['--timeout', '1']]",
            "{tmp}/m.toml: cell --timeout 1: --timeout is not for a cell, expected the key timeout",
        ),
        (
            [],
            "axes.options = [['--summary=x']]",
            "{tmp}/m.toml: cell --summary=x: --summary is not for a cell, expected --json",
        ),
        ([], "axes.options = [['-m']]", "{tmp}/m.toml: cell -m: Option '-m' requires an argument."),
        (
            [],
            "axes.options = [[]]\ndefaults.memory = '1T'",
            "{tmp}/m.toml: cell default-options: -m 1T: 1099511627776 bytes of memory, expected 1M to 64G",
        ),
    ],
)
def test_what_is_wrong_is_one_line_and_status_2(
    arguments: list[str], text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "m.toml").write_text(text)
    filled = [argument.format(tmp=tmp_path) for argument in arguments]
    assert run_app(["matrix", str(tmp_path / "m.toml"), *filled]) == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"sevplug: error: {message.format(tmp=tmp_path)}\n")
    assert os.listdir(tmp_path) == ["m.toml"]


def test_a_report_that_cannot_be_written_does_not_hide_the_table(
    stand_in: StandIn, passing: str, capsys: pytest.CaptureFixture[str]
) -> None:
    stand_in(IN_ORDER)
    assert run_app(["matrix", passing, "--json", "/dev/full"]) == 2
    out, err = capsys.readouterr()
    assert "3 cells: 3 passed in " in out
    assert err.endswith("sevplug: error: --json /dev/full: No space left on device, expected a writable file\n")


def test_without_the_package_dask_is_said_how_to_get(
    passing: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert run_app(["matrix", passing, "--dask", "tcp://127.0.0.1:1"]) == 2
    message = "--dask: the package distributed is not installed, expected it: pip install 'sevplug[dask]'"
    assert capsys.readouterr().err == f"sevplug: error: {message}\n"


def test_a_guest_runs_in_the_folder_of_its_file(tmp_path: Path) -> None:
    (tmp_path / "m.toml").write_text("""
        axes.options = [["--log-file", "log"]]
        [defaults]
        expect = { result = "shutdown", serial = "done", not-serial = "[FAIL]" }
    """)
    assert run_app(["matrix", str(tmp_path / "m.toml"), "--json", str(tmp_path / "m.json")]) == 0
    (cell,) = json.loads((tmp_path / "m.json").read_text())["cells"]
    assert cell["serial"].startswith("sevplug self-test of a guest")
    assert cell["summary"]["sev"]["launch_digest"] in (tmp_path / "log").read_text()


@pytest.mark.slow
def test_on_a_terminal_the_table_has_colours(stand_in: StandIn, passing: str, tmp_path: Path) -> None:
    with at_a_terminal(*COMMAND, "matrix", passing, "-k", "seed 1") as terminal:
        terminal.wait_for(rb"1 cell: 1 passed in \d")
        assert terminal.process.wait(30) == 0
    assert b"\x1b[32mpassed" in terminal.seen
