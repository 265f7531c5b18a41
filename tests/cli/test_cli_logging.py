"""The plug-in that tells what happens: its lines, its JSON, and what it never says."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sevplug.core import events
from sevplug.core.errors import ConfigError
from sevplug.plugins import logging, plain
from sevplug.sevapi.context import SevContext
from sevplug.sevapi.keys import TransportKeys
from sevplug.sevapi.policy import Policy
from sevplug.sevapi.version import ApiVersion

KEYS = TransportKeys(tek=b"TEKTEKTEKTEKTEK!", tik=b"TIKTIKTIKTIKTIK!")
CONTEXT = SevContext(Policy(0x5), ApiVersion(1, 55, 24), 7, KEYS)
DIGEST = "3e" * 32
# Every public event with the fields that come with it.
LIFE: list[tuple[str, dict[str, Any]]] = [
    (events.MACHINE_BUILT, {"memory": 256 << 20, "cpu": "EPYC-Milan", "plugins": ["logging", "sev"]}),
    (events.WARNING, {"text": "no tik given"}),
    (events.LAUNCH_START, {"context": CONTEXT}),
    (events.LAUNCH_UPDATE, {"name": "firmware", "gpa": 0xFFC00000, "size": 4 << 20, "page_type": "normal"}),
    (events.LAUNCH_MEASURE, {"digest": DIGEST, "measurement": "bWVhc3VyZW1lbnQ="}),
    (events.OWNER_VERIFIED, {"digest": DIGEST}),
    (events.LAUNCH_SECRET, {"gpa": 0x810000, "size": 64}),
    (events.LAUNCH_FINISH, {"state": "running"}),
    (events.RUN_RESUME, {}),
    (events.RUN_STOP, {}),
    (events.GUEST_RESET, {"guest": True, "reason": "guest-reset"}),
    (events.GUEST_SHUTDOWN, {"guest": False, "reason": "host-qmp-quit"}),
    (events.RUN_END, {"result": "shutdown", "detail": "by the guest", "seconds": 0.25}),
    (events.RUN_RAM, {"size": 256 << 20, "sha256": DIGEST}),
]
DOCUMENT = {
    "result": "shutdown",
    "detail": "by the guest",
    "seconds": 0.25,
    "plugins": ["logging", "sev"],
    "counters": {"fills": 3, "io": 4},
    "sev": {
        "policy": 5,
        "state": "running",
        "launch_digest": DIGEST,
        "measurement": None,
        "api_major": 1,
        "api_minor": 55,
        "build_id": 24,
    },
}


def machine(**options: str) -> Any:
    return SimpleNamespace(private={}, failure=None, config=SimpleNamespace(options={"log_level": "info", **options}))


def tell(host: Any, story: list[tuple[str, dict[str, Any]]]) -> None:
    logging.machine_init(host)
    for event, fields in story:
        logging.notify(host, event, fields)


def objects(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_the_console_tells_the_launch_in_words(capsys: pytest.CaptureFixture[str]):
    tell(machine(), LIFE)
    told = [re.sub(r"^ +\d+\.\d{3}  ", "", line) for line in capsys.readouterr().err.splitlines()]
    assert told == [
        "machine.built    256 MiB, EPYC-Milan, plug-ins logging sev",
        "warning          no tik given",
        "launch.start     policy 0x5, API 1.55 build 24",
        "launch.update    measured firmware: 4 MiB at 0xffc00000",
        f"launch.measure   launch digest {DIGEST}",
        "owner.verified   measurement verified: it is that of the owner's own images",
        "launch.secret    secret injected: 64 bytes at 0x810000",
        "run.resume       the guest runs",
        "run.stop         the guest is stopped",
        "guest.reset      reset, asked for by the guest (guest-reset)",
        "run.end          shutdown after 0.250 s: by the guest",
        f"run.ram          SHA-256 of 256 MiB of RAM: {DIGEST}",
    ]


def test_the_console_shows_the_summary_as_aligned_lines(capsys: pytest.CaptureFixture[str]):
    logging.summary(machine(), DOCUMENT)
    assert capsys.readouterr().err.splitlines() == [
        "",
        "result             shutdown: by the guest",
        "seconds            0.25",
        "sev policy         0x5",
        "sev state          running",
        f"sev launch digest  {DIGEST}",
        "sev measurement    -",
        "sev api            1.55 build 24",
        "counters           fills 3  io 4",
    ]


def test_each_event_is_one_json_object_with_its_stable_name(capsys: pytest.CaptureFixture[str]):
    tell(machine(log_format="json", log_level="debug"), LIFE)
    told = objects(capsys.readouterr().err)
    assert [one["event"] for one in told] == [event for event, _fields in LIFE]
    for one, (_event, fields) in zip(told, LIFE, strict=True):
        assert datetime.fromisoformat(one.pop("timestamp")).utcoffset() is not None
        assert one.pop("level") in logging.LEVELS
        expected = {name: value for name, value in fields.items() if name != "context"}
        if "context" in fields:
            expected = {"policy": 5, "api_major": 1, "api_minor": 55, "build_id": 24, "handle": 7}
        del one["event"]
        assert one == expected


def test_the_summary_is_one_json_object_too(capsys: pytest.CaptureFixture[str]):
    logging.summary(machine(log_format="json"), DOCUMENT)
    (told,) = objects(capsys.readouterr().err)
    assert told["event"] == "run.summary"
    assert {name: told[name] for name in DOCUMENT} == DOCUMENT


@pytest.mark.parametrize(
    ("result", "level"), [("shutdown", "info"), ("reset", "info"), ("timeout", "error"), ("fault", "error")]
)
def test_a_run_that_did_not_end_in_order_is_an_error(result: str, level: str, capsys: pytest.CaptureFixture[str]):
    tell(machine(log_format="json"), [(events.RUN_END, {"result": result, "detail": "", "seconds": 0.0})])
    assert objects(capsys.readouterr().err)[0]["level"] == level


@pytest.mark.parametrize(("level", "count"), [("debug", 14), ("info", 12), ("warning", 1), ("error", 0)])
def test_what_is_below_the_level_is_not_told(level: str, count: int, capsys: pytest.CaptureFixture[str]):
    tell(machine(log_level=level), LIFE)
    assert len(capsys.readouterr().err.splitlines()) == count


def test_a_machine_made_without_the_command_line_only_warns(capsys: pytest.CaptureFixture[str]):
    host = SimpleNamespace(private={}, config=SimpleNamespace(options={}))
    tell(host, LIFE)
    assert [line.split()[1] for line in capsys.readouterr().err.splitlines()] == ["warning"]


@pytest.mark.parametrize("form", logging.FORMATS)
def test_keys_never_reach_the_log(form: str, capsys: pytest.CaptureFixture[str]):
    sly = {
        "tik": KEYS.tik,
        "TEK": KEYS.tek.hex(),
        "keys": KEYS,
        "payload": "TEKTEKTEK",
        "other": {"secrets": ["TIKTIKTIK"], "list": [{"key": "TIKTIKTIK"}]},
        "raw": KEYS.tik,
        "object": KEYS,
    }
    host = machine(log_format=form, log_level="debug")
    tell(host, [*LIFE, ("plugin.own", sly)])
    logging.summary(host, {**DOCUMENT, "sev": {"tik": "TIKTIKTIK"}})
    told = capsys.readouterr().err
    assert "plugin.own" in told
    for hidden in ("TIKTIK", "TEKTEK", KEYS.tik.hex(), KEYS.tek.hex(), str(KEYS.tik)):
        assert hidden not in told


def test_what_a_name_says_is_a_secret_is_hidden_at_any_depth():
    fields = {"event": "e", "tik": 1, "a": {"Secret": 2, "b": [{"payload": 3}]}, "size": 4}
    hidden = plain.HIDDEN
    expected: Mapping[str, Any] = {
        "event": "e",
        "tik": hidden,
        "a": {"Secret": hidden, "b": [{"payload": hidden}]},
        "size": 4,
    }
    assert plain.redact(fields) == expected


def test_what_is_no_plain_value_is_shown_as_its_type():
    assert plain.plain_fields({"a": b"\0", "b": CONTEXT, "c": (1, None)}) == {
        "a": "<bytes>",
        "b": "<SevContext>",
        "c": [1, None],
    }


def test_an_event_of_a_plugin_is_told_field_by_field(capsys: pytest.CaptureFixture[str]):
    tell(machine(), [("plugin.own", {"a": 1, "b": "x"})])
    assert capsys.readouterr().err.rstrip().endswith("plugin.own       a=1  b=x")


def test_an_event_without_its_usual_fields_is_told_all_the_same(capsys: pytest.CaptureFixture[str]):
    tell(machine(), [(events.LAUNCH_START, {"context": object(), "kind": "other"})])
    assert capsys.readouterr().err.rstrip().endswith("launch.start     kind=other")


def test_control_characters_do_not_reach_the_terminal(capsys: pytest.CaptureFixture[str]):
    tell(machine(), [(events.WARNING, {"text": "a\x1b[2Jb\nc"})])
    assert capsys.readouterr().err.rstrip("\n").endswith(r"a\x1b[2Jb\nc")


def test_the_log_goes_to_a_file_instead(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    host = machine(log_file=str(tmp_path / "log"), log_format="json")
    tell(host, LIFE)
    logging.machine_close(host)
    assert capsys.readouterr().err == ""
    assert objects((tmp_path / "log").read_text())[0]["event"] == "machine.built"


def test_a_file_gets_no_colours(tmp_path: Path):
    host = machine(log_file=str(tmp_path / "log"))
    tell(host, LIFE)
    logging.summary(host, DOCUMENT)
    logging.machine_close(host)
    assert "\x1b" not in (tmp_path / "log").read_text()


def test_a_file_that_cannot_be_written_ends_the_construction(tmp_path: Path):
    path = tmp_path / "missing" / "log"
    with pytest.raises(ConfigError) as caught:
        logging.machine_init(machine(log_file=str(path)))
    assert str(caught.value) == f"--log-file {path}: No such file or directory, expected a writable file"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("environment", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)]
)
def test_colours_are_for_terminals_that_want_them(
    environment: dict[str, str], coloured: bool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    tell(machine(), LIFE)
    assert ("\x1b[" in terminal.getvalue()) is coloured


class Gone(io.StringIO):
    def write(self, _text: str) -> int:
        raise BrokenPipeError


@pytest.mark.parametrize("stream", [Gone(), None])
def test_a_terminal_that_has_gone_does_not_end_the_guest(stream: Gone | None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sys.stderr", stream)
    host = machine()
    tell(host, LIFE)
    logging.machine_close(host)
    assert host.private == {}


def test_a_log_file_on_a_full_disk_is_not_passed_over():
    host = machine(log_file="/dev/full")
    with pytest.raises(OSError, match="No space left"):
        tell(host, LIFE)
    with pytest.raises(OSError, match="No space left"):
        logging.machine_close(host)
