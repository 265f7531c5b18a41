"""``--report FILE``: a page for every run, whatever becomes of it; written whole or not at all."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from terminals import COMMAND

from sevplug.boot import embedded
from sevplug.cli.app import run_app
from sevplug.core.config import MachineConfig
from sevplug.core.errors import PluginError
from sevplug.core.hookspecs import hookimpl
from sevplug.core.machine import Machine
from sevplug.core.plugins import Selection, load_plugins

pytestmark = pytest.mark.slow

SPIN = b"\xeb\xfe"
HALT = b"\xfa\xf4"


def firmware(folder: Path, code: bytes) -> str:
    path = folder / "firmware.bin"
    path.write_bytes(bytes(0xFF0) + code.ljust(16, b"\xf4"))
    return str(path)


def ended(path: Path) -> str:
    """The result that the page at ``path`` shows; it has to be a whole one."""
    page = path.read_text()
    assert page.startswith("<!DOCTYPE html>")
    assert page.endswith("</html>")
    found = re.search(r'<span class="chip (good|bad)">([a-z]+)</span>', page)
    assert found is not None
    return found[2]


def left_in(folder: Path) -> list[str]:
    return sorted(name for name in os.listdir(folder) if name != "firmware.bin")


@pytest.fixture
def page(tmp_path: Path) -> Path:
    return tmp_path / "report.html"


def test_a_run_in_order(page: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    page.write_text("an older one")
    assert run_app(["run", "--report", str(page)]) == 0
    assert ended(page) == "shutdown"
    assert left_in(tmp_path) == ["report.html"]
    text = page.read_text()
    told = capfd.readouterr()
    (digest,) = re.findall(r"launch digest ([0-9a-f]{64})", told.err)
    assert digest in text
    assert "verified by the owner" in text
    assert "no tik and tek given" in text
    # The guest prints it, and the report hides it.
    assert embedded.SECRET.decode() in told.out
    assert embedded.SECRET.decode() not in text


@pytest.mark.parametrize(
    ("code", "arguments", "status", "result"),
    [
        (HALT, (), 1, "halted"),
        (SPIN, ("--timeout", "0.4"), 3, "timeout"),
        (HALT, ("--object", "sev-emulated,id=s,cbitpos=51,reduced-phys-bits=1,policy=0xff0001"), 4, "failed"),
    ],
)
def test_a_run_out_of_order(
    code: bytes, arguments: tuple[str, ...], status: int, result: str, page: Path, tmp_path: Path
) -> None:
    assert run_app(["run", "--bios", firmware(tmp_path, code), "-m", "1M", "--report", str(page), *arguments]) == status
    assert ended(page) == result


def test_qemus_spelling_takes_it_too(page: Path, tmp_path: Path) -> None:
    assert run_app(["qemu", "-bios", firmware(tmp_path, HALT), "-m", "1M", "-name", "mine", "--report", str(page)]) == 1
    assert "mine" in page.read_text()


def test_ctrl_c(page: Path, tmp_path: Path) -> None:
    arguments = ["run", "--bios", firmware(tmp_path, SPIN), "-m", "1M", "--report", str(page)]
    with subprocess.Popen([*COMMAND, *arguments], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        while "run.resume" not in process.stderr.readline():
            pass
        process.send_signal(signal.SIGINT)
        process.stderr.read()
        assert process.wait(20) == 130
    assert ended(page) == "quit"
    assert "interrupted by SIGINT" in page.read_text()


class Failing:
    """Fails in one hook."""

    def __init__(self, hook: str) -> None:
        self.hook = hook

    def _fail(self, hook: str) -> None:
        if hook == self.hook:
            raise RuntimeError("<b>failed</b>")

    @hookimpl
    def machine_init(self) -> None:
        self._fail("machine_init")

    @hookimpl
    def launch_update(self) -> None:
        self._fail("launch_update")

    @hookimpl
    def notify(self, event: str) -> None:
        self._fail(event)

    @hookimpl
    def cpuid(self) -> None:
        self._fail("cpuid")

    @hookimpl
    def machine_close(self) -> None:
        self._fail("machine_close")


def live(plugin: object, page: Path, **options: Any) -> None:
    manager = load_plugins(Selection.parse(["no:qmp", "no:logging"]))
    manager.add(plugin, "failing")
    with Machine(MachineConfig(boot=embedded.load(), options={"report": str(page), **options}), manager) as machine:
        machine.run(timeout=10)


@pytest.mark.parametrize("hook", ["machine_init", "machine.built", "launch_update", "run.resume", "cpuid", "run.end"])
def test_a_plugin_that_fails(hook: str, page: Path) -> None:
    with pytest.raises(PluginError):
        live(Failing(hook), page)
    text = page.read_text()
    assert ended(page) == "failed"
    assert "RuntimeError: &lt;b&gt;failed&lt;/b&gt;" in text
    assert "Traceback (most recent call last)" in text


def test_a_plugin_that_fails_while_all_is_put_away_does_not_cost_the_report(page: Path) -> None:
    with pytest.raises(PluginError):
        live(Failing("machine_close"), page)
    assert ended(page) == "shutdown"


def test_a_machine_that_never_ran(page: Path) -> None:
    manager = load_plugins(Selection.parse(["no:qmp", "no:logging"]))
    with Machine(MachineConfig(boot=embedded.load(), options={"report": str(page)}), manager):
        pass
    assert ended(page) == "unfinished"


def test_a_refused_configuration_leaves_the_file_alone(page: Path, tmp_path: Path) -> None:
    page.write_text("an older one")
    assert run_app(["run", "--report", str(page), "--object", "nothing,id=x"]) == 2
    assert page.read_text() == "an older one"
    assert left_in(tmp_path) == ["report.html"]


@pytest.mark.parametrize(
    ("path", "reason"),
    [("missing/r.html", "No such file or directory"), (".", "Is a directory"), ("", "Is a directory")],
)
def test_a_path_that_cannot_be_written_is_refused_before_the_guest_starts(
    path: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_app(["run", "--report", path, "--log-level", "error"]) == 2
    told = capfd.readouterr()
    assert told.err == f"sevplug: error: --report {path}: {reason}, expected a writable file\n"
    assert told.out == ""


@pytest.mark.parametrize(("code", "status"), [(HALT, 2), (SPIN, 2)])
def test_a_disk_that_is_full_at_the_end(
    code: bytes, status: int, page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    def full(*_arguments: object, **_more: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    arguments = ["run", "--bios", firmware(tmp_path, code), "-m", "1M", "--timeout", "0.3", "--report", str(page)]
    assert run_app([*arguments, "--log-level", "error"]) == status
    last = capfd.readouterr().err.splitlines()[-1]
    assert last == f"sevplug: error: --report {page}: No space left on device, expected a writable file"
    assert left_in(tmp_path) == []


def test_what_ended_the_machine_comes_before_a_report_that_failed(
    page: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sevplug.plugins.report.page.render", lambda _report: 1 / 0)
    refused = "sev-emulated,id=s,cbitpos=51,reduced-phys-bits=1,policy=0xff0001"
    assert run_app(["run", "--report", str(page), "--object", refused]) == 4
    told = capfd.readouterr().err
    assert "no report: division by zero" in told
    assert told.splitlines()[-1].startswith("sevplug: error: LAUNCH_START")
    assert not page.exists()


def test_two_runs_are_the_same_with_and_without_it(page: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def run(*more: str) -> tuple[str, str]:
        assert run_app(["run", "-m", "1M", "--ram-digest", *more]) == 0
        told = capfd.readouterr()
        (digest,) = re.findall(r"run\.ram .*: ([0-9a-f]{64})", told.err)
        return told.out, digest

    assert run() == run("--report", str(page))


@pytest.mark.parametrize("arguments", [["run"], ["run", "--help"]])
def test_without_the_option_nothing_of_it_is_imported(arguments: list[str]) -> None:
    script = (
        f"from sevplug.cli.app import run_app; status = run_app({arguments!r})\n"
        "import sys; print(status, {'jinja2', 'sevplug.plugins.report.page', 'sevplug.plugins.report.sampling',"
        " 'sevplug.plugins.report.values', 'sevplug.plugins.report.collect'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[-1] == "0 set()"
