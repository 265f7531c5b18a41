"""A platform in a folder: written whole or not at all, and for nobody else's eyes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import attrs
import pytest
from sev_platforms import API, CHIP, IDENTITY

from sevplug.platform.errors import PlatformError
from sevplug.platform.firmware import Firmware
from sevplug.platform.store import FILE_NAME, PlatformRecord, PlatformStore

RECORD = PlatformRecord(API, CHIP, IDENTITY, seeded=True)


@pytest.fixture
def store(tmp_path: Path) -> PlatformStore:
    store = PlatformStore(tmp_path / "platform")
    store.create(RECORD)
    return store


def test_a_platform_comes_back(store: PlatformStore) -> None:
    assert store.load() == RECORD
    for record in (
        attrs.evolve(RECORD, identity=None),
        attrs.evolve(RECORD, identity=attrs.evolve(IDENTITY, oca_key=None)),
    ):
        store.save(record)
        assert store.load() == record


def test_keys_are_for_their_owner_alone(store: PlatformStore) -> None:
    assert store.path.stat().st_mode & 0o777 == 0o600
    assert store.folder.stat().st_mode & 0o777 == 0o700
    os.chmod(store.path, 0o644)
    store.save(RECORD)
    assert store.path.stat().st_mode & 0o777 == 0o600


def test_the_file_says_what_it_is(store: PlatformStore) -> None:
    tree = json.loads(store.path.read_text())
    assert FILE_NAME.startswith("emulated-")
    assert tree["format"] == "sevplug emulated platform"
    assert "protects nothing" in tree["warning"]


def test_a_second_platform_is_not_put_over_the_first(store: PlatformStore) -> None:
    with pytest.raises(PlatformError, match="there is a platform in it already"):
        store.create(attrs.evolve(RECORD, identity=None))
    assert store.load() == RECORD


@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
def test_a_write_that_fails_leaves_the_file_as_it_was(
    store: PlatformStore, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def full(*_arguments: object, **_words: object) -> None:
        raise OSError(28, "No space left on device")

    if call == "write":
        monkeypatch.setattr(os, "fdopen", full)
    else:
        monkeypatch.setattr(os, call, full)
    with pytest.raises(PlatformError, match="No space left on device"):
        store.save(attrs.evolve(RECORD, identity=None))
    monkeypatch.undo()
    assert store.load() == RECORD
    assert [path.name for path in store.folder.iterdir()] == [FILE_NAME]


def test_a_process_killed_at_any_call_leaves_the_old_or_the_new(store: PlatformStore) -> None:
    # A child process saves and ends itself without any clean-up at the n-th call that touches the file.
    script = (
        "import os, sys, attrs\n"
        "from pathlib import Path\n"
        "from sevplug.platform.store import PlatformStore\n"
        "count = int(sys.argv[2])\n"
        "def hooked(call):\n"
        "    def run(*arguments, **words):\n"
        "        global count\n"
        "        count -= 1\n"
        "        if count < 0: os._exit(9)\n"
        "        return call(*arguments, **words)\n"
        "    return run\n"
        "store = PlatformStore(Path(sys.argv[1]))\n"
        "record = store.load()\n"
        "for name in ('open', 'fdopen', 'fsync', 'replace', 'unlink'):\n"
        "    setattr(os, name, hooked(getattr(os, name)))\n"
        "store.save(attrs.evolve(record, identity=None))\n"
    )
    outcomes = []
    for count in range(12):
        store.save(RECORD)
        run = subprocess.run([sys.executable, "-c", script, str(store.folder), str(count)], check=False)
        kept = store.load()
        assert kept in (RECORD, attrs.evolve(RECORD, identity=None))
        outcomes.append((run.returncode, kept == RECORD))
        if run.returncode == 0:
            break
    assert outcomes[0] == (9, True)
    assert outcomes[-1] == (0, False)
    store.save(RECORD)
    assert [path.name for path in store.folder.iterdir()] == [FILE_NAME]


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", "{", '{"format": "x"}', "\udcff", "[" * 100000])
def test_what_is_no_platform_is_refused_in_one_line(store: PlatformStore, text: str) -> None:
    store.path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(PlatformError, match=f"{FILE_NAME}: not a platform of version 1"):
        Firmware(store)


FIELDS = [
    (None, "format"),
    (None, "version"),
    (None, "api"),
    (None, "chip"),
    *[("chip", name) for name in ("id", "cek_key", "cek")],
    *[("identity", name) for name in ("oca_key", "oca", "pek_key", "pek", "pdh_key", "pdh")],
]


@pytest.mark.parametrize(("part", "name"), FIELDS)
@pytest.mark.parametrize("junk", [7, "", "00", "zz", "AA==", "\u0661" * 96, [], {}, [1, 2, 3000], "f" * 96, 0.5])
def test_a_changed_file_is_refused_without_showing_a_key(
    store: PlatformStore, part: str | None, name: str, junk: object
) -> None:
    tree = json.loads(store.path.read_text())
    (tree if part is None else tree[part])[name] = junk
    store.path.write_text(json.dumps(tree))
    with pytest.raises(PlatformError) as refused:
        store.load()
    assert str(refused.value).startswith(str(store.path))
    assert f"{CHIP.cek_key.scalar:x}" not in str(refused.value)
    assert f"{IDENTITY.pek_key.scalar:x}" not in str(refused.value)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(PlatformError, match=f"missing: no platform in it, expected {FILE_NAME}"):
        PlatformStore(tmp_path / "missing").load()
    with pytest.raises(PlatformError, match="No such file or directory"):
        PlatformStore(tmp_path / "no" / "where").create(RECORD)
    (tmp_path / "file").touch()
    with pytest.raises(PlatformError, match=r"Not a directory|File exists"):
        PlatformStore(tmp_path / "file").create(RECORD)
