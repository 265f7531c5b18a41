"""A plug-in that raises in a hook, whichever: one line, exit status 2, and nothing half done is left."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from assembler import assemble
from distributions import HEAD, Installer
from long_guest import C_BIT, long_guest, remap

from sevplug.cli.app import run_app
from sevplug.core import hookspecs

HOOKS = sorted(name for name, value in vars(hookspecs).items() if hasattr(value, f"{hookspecs.PROJECT}_spec"))
# Of hooks that the run of the embedded guest with a secret does not come to: a guest that has them called.
GUESTS = {
    "wrmsr": "mov ecx, 0x1a0; rdmsr; wrmsr; out 0xf4, al; hlt",
    "unknown_opcode": ".byte 0x0f, 0x0a; out 0xf4, al; hlt",
}
FORGETS_THE_C_BIT = f"mov [0x200000], rbx; {remap(0x200000, 0x200000, private=False)} mov rbx, [0x200000]"
# A name that sorts behind all others: it is registered last, and so asked first.
NAME = "zzz"


def command_line(hook: str, folder: Path) -> list[str]:
    """A command that gets as far as ``hook``, with everything that could be left behind in ``folder``."""
    if hook == "add_commands":
        return ["-P", NAME, "unknown-command"]
    kept = folder / "guest"
    if hook == "snapshot_save":
        return [
            "snapshot",
            str(kept),
            "-P",
            NAME,
            "-P",
            "no:sev",
            "-P",
            "no:logging",
            "--at-line",
            "guest",
            "-m",
            "16M",
        ]
    arguments = ["run", "-P", NAME, "-P", "no:logging", "--summary", str(folder / "summary"), "--timeout", "20"]
    arguments += ["--qmp", f"unix:{folder / 'qmp'}", "--serial", f"unix:{folder / 'serial'}"]
    if hook == "page_event" or hook in GUESTS:
        image = assemble(GUESTS[hook]) if hook in GUESTS else long_guest(FORGETS_THE_C_BIT)
        (folder / "guest").write_bytes(image)
        sev = f"sev-emulated,id=sev0,cbitpos={C_BIT},reduced-phys-bits=1"
        return [*arguments, "--bios", str(folder / "guest"), "--object", sev]
    (folder / "secret").write_bytes(b"a secret")
    return [*arguments, "--secret", f"luks-key={folder / 'secret'}"]


@pytest.mark.parametrize("hook", sorted({*HOOKS, "add_qmp_commands"} - {"snapshot_load"}))
def test_a_hook_that_raises_ends_the_command(
    installer: Installer, hook: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = f"{HEAD}@hookimpl(optionalhook=True)\ndef {hook}(): return {{}}['nothing']\n"
    installer("extra-dist", {"extra_one.py": source}, **{NAME: "extra_one"})
    threads = set(threading.enumerate())
    (tmp_path / "run").mkdir()
    status = run_app(command_line(hook, tmp_path / "run"))
    assert capsys.readouterr().err == (
        f"sevplug: error: plug-in 'zzz' from extra-dist 1.2 failed in {hook} (KeyError: 'nothing', extra_one.py:3); "
        "leave it out with -P no:zzz\n"
    )
    assert status == 2
    left = {path.name for path in (tmp_path / "run").iterdir()} - {"guest", "secret"}
    # The guest was done with when the machine was taken down, and what is told of it is whole.
    assert left == ({"summary"} if hook == "machine_close" else set())
    assert set(threading.enumerate()) == threads


def test_a_plug_in_that_does_not_know_its_own_snapshot_is_named(
    installer: Installer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = str(tmp_path / "guest")
    plugins = ["-P", "no:sev", "-P", "no:logging"]
    assert run_app(["snapshot", kept, *plugins, "--at-line", "guest", "-m", "16M"]) == 0
    source = (
        f"{HEAD}@hookimpl\ndef snapshot_save(): return None\n"
        "@hookimpl\ndef snapshot_load(state): return state['nothing']\n"
    )
    installer("extra-dist", {"extra_one.py": source}, **{NAME: "extra_one"})
    # A plug-in that the snapshot knows nothing of has nothing to load.
    assert run_app(["run", "--from", kept, *plugins, "-P", NAME]) == 0
    assert run_app(["snapshot", kept, *plugins, "-P", NAME, "--at-line", "guest", "-m", "16M"]) == 0
    capsys.readouterr()
    assert run_app(["run", "--from", kept, *plugins, "-P", NAME]) == 2
    assert capsys.readouterr().err == (
        f"sevplug: error: snapshot {kept}: the state of plug-in {NAME} does not fit (KeyError)\n"
    )


def test_a_plug_ins_own_command_that_raises_is_named(installer: Installer, capsys: pytest.CaptureFixture[str]) -> None:
    source = (
        f"{HEAD}from click import Command\n"
        "@hookimpl\ndef add_commands(cli): cli.add_command(Command('extra', callback=fail))\n"
        "def fail(): return {}['nothing']\n"
    )
    installer("extra-dist", {"extra_one.py": source}, extra="extra_one")
    assert run_app(["-P", "extra", "extra"]) == 2
    assert capsys.readouterr().err == (
        "sevplug: error: plug-in 'extra' from extra-dist 1.2 failed (KeyError: 'nothing', extra_one.py:5); "
        "leave it out with -P no:extra\n"
    )


def test_a_plug_in_for_another_release_is_one_line(installer: Installer, capsys: pytest.CaptureFixture[str]) -> None:
    installer("extra-dist", {"extra_one.py": ""}, requires=("sevplug>=99",), extra="extra_one")
    assert run_app(["run", "-P", "extra"]) == 2
    assert "plug-in 'extra' from extra-dist 1.2 is for sevplug >=99, found " in capsys.readouterr().err


def test_a_guest_that_another_plug_in_launches_gets_no_secret_from_the_owner_played_here(
    installer: Installer, capsys: pytest.CaptureFixture[str]
) -> None:
    source = (
        f"{HEAD}from sevplug.core.launch import LaunchMeasurement\n"
        "@hookimpl\ndef launch_start(): return object()\n"
        "@hookimpl\ndef launch_measure(): return LaunchMeasurement(bytes(48), b'')\n"
    )
    installer("extra-dist", {"extra_one.py": source}, extra="extra_one")
    assert run_app(["run", "-P", "extra", "-P", "no:sev"]) == 0
    assert "no secret is injected: expected the plug-ins sev, measurement and" in capsys.readouterr().err
