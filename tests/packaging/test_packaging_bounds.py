"""The oldest releases that pyproject.toml allows are those that `tox -e oldest` tests."""

from __future__ import annotations

import configparser
import tomllib

from images import ROOT
from packaging.requirements import Requirement
from packaging.version import Version


def test_the_environment_oldest_has_every_lower_bound() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lower = {}
    for text in project["dependencies"]:
        wanted = Requirement(text)
        (bound,) = [one.version for one in wanted.specifier if one.operator in (">=", "==")]
        lower[wanted.name] = Version(bound)
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(ROOT / "tox.ini")
    tested = dict(line.split("==") for line in tox["testenv:oldest"]["deps"].split())
    assert {name: Version(version) for name, version in tested.items()} == lower
