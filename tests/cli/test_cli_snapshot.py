"""``sevplug snapshot`` and ``sevplug run --from``, as a user starts them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest

from sevplug.cli.app import run_app

pytestmark = pytest.mark.slow

COMMAND = [sys.executable, "-c", "from sevplug.cli import main; main()"]
LINE = "SEV is active"


@attrs.frozen
class Done:
    status: int
    said: str
    told: str

    @property
    def error(self) -> str:
        """The last line on stderr, without what all errors begin with."""
        return self.told.splitlines()[-1].removeprefix("sevplug: error: ")


Sevplug = Callable[..., Done]


@pytest.fixture
def sevplug(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sevplug:
    """The command line in this process, in a folder with two keys."""
    monkeypatch.chdir(tmp_path)
    for name, first in (("key", 0), ("other-key", 1)):
        Path(name).write_bytes(bytes(range(first, first + 32)))

    def run(*arguments: str) -> Done:
        status = run_app(arguments)
        return Done(status, *capfd.readouterr())

    return run


@pytest.fixture
def kept(sevplug: Sevplug) -> Done:
    """A snapshot of the guest that comes with sevplug, in the file ``guest``."""
    done = sevplug("snapshot", "guest", "--at-line", LINE, "--snapshot-key", "key", "-m", "16M")
    assert done.status == 0, done.told
    return done


FROM = ("run", "--from", "guest", "--snapshot-key", "key")


def test_a_guest_goes_on_with_nothing_named_but_its_snapshot(sevplug: Sevplug, kept: Done) -> None:
    whole = sevplug("run", "-m", "16M")
    first = sevplug(*FROM, "--ram-digest", "--summary", "first.json")
    second = sevplug(*FROM, "--ram-digest", "--summary", "second.json")
    assert (first.status, first.said) == (0, second.said)
    assert kept.said + first.said == whole.said
    assert "a demonstration secret" in first.said
    summaries = [json.loads(Path(f"{name}.json").read_text()) for name in ("first", "second")]
    assert summaries[0]["ram_sha256"] == summaries[1]["ram_sha256"]
    assert summaries[0]["sev"]["state"] == "running"


def test_the_secret_and_the_keys_are_nowhere_in_the_file(kept: Done, sevplug: Sevplug) -> None:
    assert b"demonstration" not in Path("guest").read_bytes()
    assert os.stat("guest").st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ((), "snapshot guest: it is under a key, expected --snapshot-key"),
        (("--snapshot-key", "other-key"), "snapshot guest: it was made under another key, or is damaged"),
        (("--snapshot-key", "nothing"), "--snapshot-key nothing: No such file or directory"),
        (("--snapshot-key", "key", "-m", "32M"), "snapshot guest: memory (-m): made with 16777216, this machine has"),
        (("--snapshot-key", "key", "--seed", "1"), "snapshot guest: seed: made with 0, this machine has 1"),
        (("--snapshot-key", "key", "-P", "no:sev"), "snapshot guest: plug-ins: made with "),
        (("--snapshot-key", "key", "--bios", "firmware"), "snapshot guest: firmware firmware: its SHA-256 is "),
        (("--snapshot-key", "key", "--secret", "736869e5-84f0-4973-92ec-06879ce3da0b=key"),
         "--secret: the guest of a snapshot has been launched, nothing is injected"),
        (("--snapshot-key", "key", "--disk", "firmware"), "snapshot guest: devices: made with "),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_line(sevplug: Sevplug, kept: Done, more: tuple[str, ...], says: str) -> None:
    Path("firmware").write_bytes(bytes(4096 - 16) + b"\xf4" * 16)
    done = sevplug("run", "--from", "guest", *more)
    assert done.status == 2
    assert done.error.startswith(says)
    assert done.said == ""


def test_a_damaged_file_is_one_line(sevplug: Sevplug, kept: Done) -> None:
    data = bytearray(Path("guest").read_bytes())
    data[-1] ^= 1
    Path("guest").write_bytes(data)
    assert sevplug(*FROM).error == "snapshot guest: it was made under another key, or is damaged"
    Path("guest").write_bytes(data[:-1])
    assert sevplug(*FROM).error.startswith("snapshot guest: truncated, ")


def test_a_plain_guest_needs_no_key_and_an_encrypted_one_is_refused_before_it_runs(sevplug: Sevplug) -> None:
    refused = sevplug("snapshot", "guest", "--at-time", "0.01", "-m", "16M")
    assert refused.error == (
        "snapshot guest: the guest's memory is encrypted, so it needs a key: expected --snapshot-key FILE"
    )
    assert (refused.status, refused.said, Path("guest").exists()) == (2, "", False)
    assert sevplug("snapshot", "guest", "--at-line", "guest", "-m", "16M", "-P", "no:sev").status == 0
    done = sevplug("run", "--from", "guest", "-P", "no:sev")
    assert done.said
    refused = sevplug("run", "--from", "guest", "-P", "no:sev", "--snapshot-key", "key")
    assert refused.error == "snapshot guest: it is under no key, expected no --snapshot-key"


@pytest.mark.parametrize("point", [("--at-time", "0.0003"), ("--at-address", "0xfffffff0"), ("--at-line", LINE)])
def test_each_kind_of_point(sevplug: Sevplug, point: tuple[str, str]) -> None:
    kept = sevplug("snapshot", "guest", *point, "--snapshot-key", "key", "-m", "16M")
    assert kept.status == 0, kept.told
    later, whole = sevplug(*FROM).said, sevplug("run", "-m", "16M").said
    # Half a line is shown by both: who goes on has the whole line.
    assert whole.startswith(kept.said)
    assert whole.endswith(later)
    assert len(whole) <= len(kept.said + later) < len(whole) + 80


def test_a_point_in_wall_time(sevplug: Sevplug) -> None:
    Path("spin").write_bytes(bytes(4096 - 16) + b"\xeb\xfe".ljust(16, b"\xf4"))
    spin = ("--bios", "spin", "-m", "16M")
    assert sevplug("snapshot", "guest", "--at-wall", "0.2", "--snapshot-key", "key", *spin).status == 0
    assert sevplug(*FROM, "--timeout", "0.2").status == 3


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        ((), 2, "snapshot guest: expected one of --at-line, --at-time, --at-wall, --at-address"),
        (("--at-line", "a", "--at-time", "1"), 2, "snapshot guest: expected one of --at-line, --at-time, "),
        (("--at-line", "("), 2, "--at-line (: no regular expression: "),
        (("--at-time", "soon"), 2, "--at-time soon: expected a number of seconds above 0"),
        (("--at-address", "here"), 2, "--at-address here: expected a number from 0 to 0xffffffffffffffff"),
        (("--at-line", "never"), 1, "no snapshot: the guest ended before the line 'never': shutdown, "),
        (("--at-time", "9", "-S"), 2, "-S: a guest that does not run comes to no point, expected no -S"),
    ],
)
def test_points_that_are_none_or_do_not_come(
    sevplug: Sevplug, arguments: tuple[str, ...], status: int, says: str
) -> None:
    done = sevplug("snapshot", "guest", "--snapshot-key", "key", "-m", "16M", *arguments)
    assert (done.status, done.error.startswith(says)) == (status, True), done.error
    assert not Path("guest").exists()


@pytest.mark.parametrize("place", ["nowhere/guest", "."])
def test_a_place_that_cannot_be_is_refused_before_the_guest_runs(sevplug: Sevplug, place: str) -> None:
    done = sevplug("snapshot", place, "--at-line", LINE, "--snapshot-key", "key", "-m", "16M")
    assert (done.status, done.said) == (2, "")
    assert done.error == f"snapshot {place}: expected the name of a file in a folder that is there"


def test_a_key_without_a_snapshot_is_refused(sevplug: Sevplug) -> None:
    done = sevplug("run", "--snapshot-key", "key")
    assert done.error == "--snapshot-key: no snapshot is opened or made, expected --from or --qmp too"


def test_a_guest_that_is_interrupted_leaves_no_file(tmp_path: Path) -> None:
    (tmp_path / "spin").write_bytes(bytes(4096 - 16) + b"\xeb\xfe".ljust(16, b"\xf4"))
    arguments = ["snapshot", "guest", "--at-line", "never", "--bios", "spin", "-m", "16M", "-P", "no:sev"]
    with subprocess.Popen([*COMMAND, *arguments], cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        while "run.resume" not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
    assert sorted(os.listdir(tmp_path)) == ["spin"]
