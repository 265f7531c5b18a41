"""Which folder of the package may import which, and the words that the core does not know."""

from __future__ import annotations

import ast
import functools
import re
import sys
from pathlib import Path

import pytest

import sevplug

PACKAGE = Path(sevplug.__file__).parent
CORE = PACKAGE / "core"
ENGINE = CORE / "engine"
FOLDERS = ("board", "boot", "cli", "core", "matrix", "owner", "platform", "plugins", "sevapi", "testing")
# folder -> what of sevplug it may import besides itself
ALLOWED: dict[str, set[str]] = {
    "core": set(),
    "sevapi": set(),
    "matrix": {"core"},
    "board": {"boot", "core"},
    "boot": {"core"},
    "owner": {"sevapi"},
    "platform": {"sevapi"},
    "plugins": {"core", "board", "boot", "platform", "sevapi"},
    "cli": {"core", "board", "boot", "matrix", "owner", "platform", "plugins", "sevapi"},
    "testing": {"core", "board", "boot", "owner", "platform", "plugins", "sevapi"},
}


def modules(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.py"))


@functools.cache
def imports(path: Path) -> set[str]:
    """The dotted name of everything ``path`` imports, wherever in the file; relative names made absolute."""
    package = [PACKAGE.name, *path.relative_to(PACKAGE).parent.parts]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            name = ".".join([*base, *([node.module] if node.module else [])])
            found |= {f"{name}.{alias.name}" for alias in node.names}
    return found


def imported_folders(path: Path) -> set[str]:
    return {
        parts[1] for parts in (name.split(".") for name in imports(path)) if parts[0] == "sevplug" and len(parts) > 1
    }


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_imports_only_what_it_may(folder: str) -> None:
    paths = modules(PACKAGE / folder)
    assert paths
    for path in paths:
        strangers = imported_folders(path) & set(FOLDERS) - ALLOWED[folder] - {folder}
        assert not strangers, f"{path.relative_to(PACKAGE)} imports {', '.join(sorted(strangers))}"


def test_every_folder_of_the_package_has_a_rule() -> None:
    folders = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file()}
    assert folders == set(ALLOWED)


def test_nothing_but_pytest_imports_the_fixtures() -> None:
    assert {folder for folder, allowed in ALLOWED.items() if "testing" in allowed} == set()
    users = {path for path in modules(PACKAGE) if any(name.split(".")[0] == "pytest" for name in imports(path))}
    assert users
    assert all(PACKAGE / "testing" in path.parents for path in users), users


def test_native_code_is_reached_from_the_engine_folder_and_for_the_compiled_cipher_alone() -> None:
    users = {path for path in modules(PACKAGE) if any(name.split(".")[0] == "ctypes" for name in imports(path))}
    others = {path for path in users if ENGINE not in path.parents}
    assert others == {PACKAGE / "native.py", PACKAGE / "sevapi" / "compiled" / "__init__.py"}


def test_what_every_folder_may_import_imports_none() -> None:
    assert not imported_folders(PACKAGE / "native.py")


def test_the_engine_folder_alone_knows_the_cpu_engine() -> None:
    users = {path for path in modules(PACKAGE) if "unicorn" in path.read_text().lower()}
    assert users
    assert all(ENGINE in path.parents for path in users), users


@pytest.mark.parametrize("path", modules(CORE), ids=lambda path: str(path.relative_to(CORE)))
def test_the_core_does_not_know_the_words(path: Path) -> None:
    text = path.read_text()
    # Names such as sev_object and SevContext count as well; sevplug itself does not.
    for word in re.findall(r"[A-Za-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text)):
        assert word.lower() not in {"sev", "snp"}, f"{word} in {path.relative_to(PACKAGE)}"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import sevplug.board.pit", {"board"}),
        ("from sevplug.plugins import sev", {"plugins"}),
        ("from sevplug import cli", {"cli"}),
        ("def f():\n    from ..sevapi import keys", {"sevapi"}),
        ("import os", set()),
    ],
)
def test_the_rule_sees_every_spelling_of_an_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, expected: set[str]
) -> None:
    home = tmp_path / "sevplug" / "core"
    home.mkdir(parents=True)
    (home / "guilty.py").write_text(source)
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", tmp_path / "sevplug")
    assert imported_folders(home / "guilty.py") == expected
