"""What a third party does, by the documentation: a package made from the template, and the example, installed and run.

`tox -e third-party` has sevplug's wheel in its environment; what is installed besides is taken back.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from images import ROOT
from packages import built_package

pytestmark = pytest.mark.package
BUILT = ("build", "*.egg-info", "__pycache__")
PAGE = ROOT / "docs" / "howto" / "write-a-plug-in.md"


BIN = Path(sys.prefix) / "bin"


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """The page's commands, run in a folder that holds a copy of sevplug's sources; the folder and the output."""
    # It installs packages where it runs, so not without an environment for it.
    built_package()
    folder = tmp_path_factory.mktemp("work")
    shutil.copytree(ROOT / "examples", folder / "sevplug" / "examples", ignore=shutil.ignore_patterns(*BUILT))
    shutil.copytree(ROOT / "templates", folder / "sevplug" / "templates")
    commands = "".join(re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE))
    # What builds is in the environment; pip's word for "without a second one" is this.
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "PIP_NO_BUILD_ISOLATION": "0"}
    try:
        run = subprocess.run(
            ["bash", "-euxc", commands], cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        assert run.returncode == 0, run.stdout + run.stderr
        yield folder, run.stdout
    finally:
        subprocess.run([BIN / "pip", "uninstall", "--quiet", "--yes", "sevplug-hello", "sevplug-snp-stub"], check=True)


def test_the_package_made_from_the_template_is_found_and_its_tests_pass(done: tuple[Path, str]) -> None:
    _folder, output = done
    assert "5 passed" in output
    assert re.search(r"^hello +0\.1\.0 +sevplug-hello +off +-$", output, re.MULTILINE)


def test_the_plug_ins_run_where_they_are_asked_for(done: tuple[Path, str]) -> None:
    _folder, output = done
    runs = output.split("sevplug self-test of a guest")[1:]
    assert len(runs) == 2
    assert all(run.split("[FAIL]")[0] == run and "\ndone" in run for run in runs)
    # The owner who is played by default knows SEV's launch and no other.
    assert ["no secret was injected" in run for run in runs] == [False, True]
    assert "snp-measure" in output.split("Commands:")[-1]


def test_the_pages_python_runs_too(done: tuple[Path, str]) -> None:
    (block,) = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    subprocess.run([BIN / "python", "-c", block], cwd=done[0], check=True)


@pytest.mark.parametrize(("name", "expected"), [("Hello", "expected lower-case letters"), ("a--b", "single hyphens")])
def test_a_name_that_is_none_is_refused(done: tuple[Path, str], name: str, expected: str) -> None:
    template = done[0] / "sevplug" / "templates" / "plugin"
    command = [BIN / "copier", "copy", "--defaults", "--data", f"name={name}", template, done[0] / "refused"]
    run = subprocess.run(command, check=False, capture_output=True, text=True)
    assert run.returncode != 0
    assert expected in run.stderr
    assert not (done[0] / "refused").exists()
