"""Every command of the documentation works, and prints what its page shows.

The convention is that of tests/support/pages.py. A page whose commands need real images, kernels or programs is marked.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from clones import clone
from images import ROOT
from page_runner import run_page
from pages import Block, blocks, matches, pages, stray_commands
from parts import find_image, find_tool

# Why a block is not run. It says so in the page, in these words.
REASONS = {
    "downloads": "fetches images from Debian's mirror, as CI does before the tests",
    "installs into the clone": "the README's command, which is run, does the same",
    "tox would install a release": "what it would run stands below it and is run",
    "takes half an hour": "the bench has tests of its own",
    "waits in the firmware's shell": "tests/real/test_real_firmware.py comes there",
    "needs a terminal": "raw keys; tests/cli/test_cli_terminal.py types them",
    "needs a cluster": "tests/matrix/test_matrix_dask.py makes its own",
}
# Signatures, and not programs; tests/core/test_core_docs_hooks.py compares them with the code.
SIGNATURES = {"docs/reference/hooks.md"}
# Pages that install packages, and the test that runs them in an environment for that.
RUN_ELSEWHERE = {"docs/howto/write-a-plug-in.md": "tests/third_party/test_third_party_packages.py"}
# README's two commands for a fresh clone stand alone in their lines, to be copied; the tests below know them.
SET_UP = ("python3 -m venv .venv && .venv/bin/pip install . && .venv/bin/sevplug run",
          "python3 -m venv .venv && .venv/bin/pip install tox && .venv/bin/tox")  # fmt: skip
TOOLS = {
    "virt-qemu-sev-validate": "libvirt-clients-qemu",
    "gdb": "gdb",
    "mkfs.ext4": "e2fsprogs",
    "qemu-system-x86_64": "qemu-system-x86",
}
_IMAGE = re.compile(r"\$\{?SEVPLUG_GUESTS\}?/([\w.-]+)")
_KERNEL = re.compile(r"vmlinuz|bzImage")


def runnable(page: Path) -> list[Block]:
    found = blocks(page)
    if str(page.relative_to(ROOT)) in SIGNATURES:
        found = [block for block in found if block.language != "python"]
    return found


def commands_of(page: Path) -> str:
    if str(page.relative_to(ROOT)) in RUN_ELSEWHERE:
        return ""
    return "".join(block.text for block in runnable(page) if block.runs)


def tools_of(text: str) -> set[str]:
    return {tool for tool in TOOLS if re.search(rf"(?m)(?:^|[\s(|/]){re.escape(tool)}\b", text)}


def marked(page: Path) -> object:
    text = commands_of(page)
    if _KERNEL.search(text):
        marks = [pytest.mark.linux]
    elif _IMAGE.search(text) or tools_of(text):
        marks = [pytest.mark.real]
    else:
        marks = [pytest.mark.slow]
    return pytest.param(page, marks=marks, id=str(page.relative_to(ROOT)))


@pytest.mark.parametrize("page", [marked(page) for page in pages() if commands_of(page)])
def test_the_commands_of_a_page_work(page: Path, tmp_path: Path) -> None:
    text = commands_of(page)
    for tool in sorted(tools_of(text)):
        find_tool(tool, TOOLS[tool])
    guests = tmp_path / "guests"
    guests.mkdir()
    for name in sorted(set(_IMAGE.findall(text))):
        (guests / name).symlink_to(find_image(name).resolve())
    run_page(runnable(page), tmp_path, guests, timeout=400)


def test_a_command_stands_in_a_block_that_is_run() -> None:
    stray = [line for page in pages() for line in stray_commands(page) if not line.endswith(SET_UP)]
    assert not stray, "commands outside a ```sh block:\n" + "\n".join(stray)


LEFT_OUT = [block for page in pages() for block in blocks(page) if "not run" in block.first_line.lower()]


@pytest.mark.parametrize("block", LEFT_OUT, ids=lambda block: f"{block.where} {block.not_run}")
def test_what_is_not_run_says_why_in_its_page(block: Block) -> None:
    assert block.not_run in REASONS, f"{block.where}: expected # Not run by the tests: REASON., of {sorted(REASONS)}"


def test_every_reason_is_one_of_some_page() -> None:
    assert {block.not_run for block in LEFT_OUT} == set(REASONS)


def test_a_page_that_another_test_runs_is_named_there() -> None:
    for page, test in RUN_ELSEWHERE.items():
        assert Path(page).name in (ROOT / test).read_text()


@pytest.mark.parametrize("page", [pytest.param(page, id=str(page.relative_to(ROOT))) for page in pages()])
def test_the_files_of_a_page_are_well_formed(page: Path) -> None:
    for block in runnable(page):
        try:
            if block.language == "python":
                compile(block.text, block.where, "exec")
            elif block.language == "toml":
                tomllib.loads(block.text)
            elif block.language == "json":
                json.loads(block.text)
        except (SyntaxError, ValueError) as error:
            pytest.fail(f"{block.where}: {error}")


def test_the_readme_has_the_two_commands_for_a_fresh_clone() -> None:
    text = (ROOT / "README.md").read_text()
    for command in SET_UP:
        assert f"\n    {command}\n" in text


@pytest.mark.real
def test_the_readmes_first_command_installs_and_runs(tmp_path: Path) -> None:
    clone(tmp_path / "clone")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("SEVPLUG_", "PYTHON"))}
    done = subprocess.run(
        SET_UP[0], shell=True, cwd=tmp_path / "clone", env=clean, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "[ok]   MSR 0xc0010131: SEV is active" in done.stdout


@pytest.mark.parametrize(
    ("expected", "printed", "same"),
    [
        (["a 1.000  b"], "a  12.345  b  \n", True),
        (["a 1.000  b"], "a 1.5  c\n", False),
        (["first", "...", "last"], "first\nlast\n", True),
        (["first", "...", "last"], "first\n1\n2\nlast\n", True),
        (["first", "...", "last"], "first\nlast\nmore\n", False),
        (["key ...", "end"], "key a+b/c==\nend\n", True),
        (["key ..."], "other\n", False),
        ([], "anything\n", False),
        ([], "", True),
    ],
)
def test_what_a_page_shows_is_compared(expected: list[str], printed: str, same: bool) -> None:
    assert matches(expected, printed) is same


def test_a_page_that_lies_is_told(tmp_path: Path) -> None:
    page = "docs/page.md"
    with pytest.raises(AssertionError, match=r"docs/page.md:7: exit status 3\n(?s:.*)seen"):
        run_page([Block(page, 1, "sh", "x=1\n"), Block(page, 7, "sh", "echo seen $x\n(exit 3)\n")], tmp_path, None, 30)
    for number, (block, told) in enumerate(
        [
            (Block(page, 2, "console", "$ echo 1\n2\n"), r"page.md:2: \$ echo 1\n(?s:.*)shows\n2"),
            (Block(page, 3, "sh", "sleep 20\n"), "page.md:3: not done after 1 s"),
            (Block(page, 4, "python", "raise SystemExit(5)\n"), "page.md:4: exit status 5"),
        ]
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        with pytest.raises(AssertionError, match=told):
            run_page([block], folder, None, 1 if number == 1 else 30)


def test_a_page_may_bring_files_and_show_failures(tmp_path: Path) -> None:
    found = [
        Block("p", 1, "python", "# tool/it.py\nprint('it', 6 * 7)\n"),
        Block("p", 2, "sh", "number=5\n"),
        Block(
            "p",
            3,
            "console",
            "$ python3 tool/it.py\nit 42\n$ echo $number \\\n  more\n5 more\n$ cat nowhere\n...: No such file...\n",
        ),
        Block("p", 4, "sh", "# Not run by the tests: needs root.\nexit 1\n"),
    ]
    run_page(found, tmp_path, None, 30)
