"""What is in the source distribution; `tox -e sdist`, which installs it, runs this."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from images import ROOT
from packages import built_package, files_of

pytestmark = pytest.mark.package
# Of the repository, what only its own checks need.
NOT_IN_SDIST = {".ci/run", ".gitignore"}


@pytest.fixture
def unpacked(tmp_path: Path) -> Path:
    """The tree in the source distribution."""
    with tarfile.open(built_package()) as archive:
        archive.extractall(tmp_path, filter="data")
    (tree,) = tmp_path.iterdir()
    return tree


def test_the_source_distribution_has_every_file_of_the_repository(unpacked: Path) -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("this tree is no git repository: nothing says which files belong to it")
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert set(tracked.splitlines()) - NOT_IN_SDIST - files_of(unpacked) == set()


def test_the_tests_in_the_source_distribution_can_be_collected_and_run(unpacked: Path) -> None:
    def run(*arguments: str) -> str:
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
        done = subprocess.run(command, cwd=unpacked, check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert "error" not in run("--collect-only").lower().splitlines()[-1]
    assert " passed" in run("tests/boot", "tests/matrix", "tests/core/test_core_docs_hooks.py")
