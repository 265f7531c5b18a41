"""A page's commands in a shell, as a reader would type them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

from pages import Block, matches, steps


def run_page(found: list[Block], folder: Path, guests: Path | None, timeout: float) -> None:
    """Run the blocks in ``folder``; AssertionError tells which one failed, or printed something else than it shows."""
    state = folder / "state"
    page = folder / "page"
    state.mkdir()
    page.mkdir()
    script = ["set -eu -o pipefail"]
    for number, block in enumerate(found):
        if block.file is not None:
            target = page / block.file
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(block.text)
        elif block.runs:
            script += _shell(number, block, state)
    # A session of its own, so that what a page leaves running can be ended with it.
    process = subprocess.Popen(
        ["bash", "-c", "\n".join(script)],
        cwd=page,
        env=_environment(folder, guests),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )
    try:
        _, complaint = process.communicate(timeout=timeout)
        late = False
    except subprocess.TimeoutExpired:
        late, complaint = True, ""
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert process.stderr is not None
        process.stderr.close()
    if late or process.returncode:
        step = (state / "step").read_text().split()[0] if (state / "step").exists() else "0"
        block = found[int(step.partition(".")[0])]
        printed = "".join(path.read_text(errors="replace") for path in sorted(state.glob(f"{step}*.out")))
        why = f"not done after {timeout:g} s" if late else f"exit status {process.returncode}"
        raise AssertionError(f"{block.where}: {why}\n{block.text}\n--- it printed\n{printed[-4000:]}{complaint}")
    _compare(found, state)


def _shell(number: int, block: Block, state: Path) -> list[str]:
    """The block as lines of the page's script."""
    if block.language == "python":
        program = state / f"{number}.py"
        program.write_text(block.text)
        return _piece(str(number), f"{sys.executable} {program}", state)
    if block.language == "sh":
        return _piece(str(number), block.text, state)
    lines = []
    for index, step in enumerate(steps(block)):
        # What a page shows may be a failure.
        lines += ["set +e", *_piece(f"{number}.{index}", step.command, state), "set -e"]
    return lines


def _piece(name: str, text: str, state: Path) -> list[str]:
    return [f"echo {name} >{state}/step", "{", text, f"}} >{state}/{name}.out 2>&1"]


def _environment(folder: Path, guests: Path | None) -> dict[str, str]:
    home = folder / "home"
    home.mkdir()
    found = {name: value for name, value in os.environ.items() if not name.startswith(("SEVPLUG_", "PYTEST_"))}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    found.update(PATH=path, HOME=str(home), TERM="dumb", COLUMNS="120", NO_COLOR="1")
    if guests is not None:
        found["SEVPLUG_GUESTS"] = str(guests)
    return found


def _compare(found: list[Block], state: Path) -> None:
    for number, block in enumerate(found):
        if block.language != "console" or not block.runs:
            continue
        for index, step in enumerate(steps(block)):
            printed = (state / f"{number}.{index}.out").read_text(errors="replace")
            assert matches(step.expected, printed), (
                f"{block.where}: $ {step.command}\n--- the page shows\n"
                + "\n".join(step.expected)
                + f"\n--- it printed\n{printed}"
            )
