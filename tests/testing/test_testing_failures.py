"""What a user sees when a test fails, and that no machine outlives its test."""

from __future__ import annotations

import re
import time

import pytest
from inner_runs import QUICKLY, InnerRun

from sevplug.testing import factories, guest, machine_thread

pytestmark = pytest.mark.slow

# A guest of 4 KiB that says "ok>" without a line's end, and loops for ever.
SPINNING = """
    CODE = b"".join(b"\\xba\\xf8\\x03\\xb0" + bytes([letter]) + b"\\xee" for letter in b"ok>") + b"\\xeb\\xfe"
    SPINNING = CODE.ljust(0xFF0, b"\\xf4") + b"\\xe9\\x0d\\xf0".ljust(16, b"\\xf4")
"""


def test_an_expectation_that_is_not_met_ends_at_the_tests_own_line_with_the_last_words(inner_run: InnerRun) -> None:
    outcomes, text = inner_run(
        """
        def test_login(sevplug_machine, record):
            guest = sevplug_machine()
            record(guest.machine)
            guest.expect("login: ")
        """,
    )
    assert outcomes == {"failed": 1}
    shown = text[text.index("___ test_login ___") : text.index("= short test summary")]
    shown = re.sub(r"0x[0-9a-f]{12}", "0x...", shown)
    assert shown.splitlines()[2:-1] == [
        "sevplug_machine = <sevplug.testing.factories.MachineFactory object at 0x...>",
        "record = <built-in method append of list object at 0x...>",
        "",
        "    def test_login(sevplug_machine, record):",
        "        guest = sevplug_machine()",
        "        record(guest.machine)",
        '>       guest.expect("login: ")',
        "E       sevplug.board.console.ConsoleError: b'login: ' did not come before the guest ended; the last that the "
        "guest said:",
        "E         | sevplug self-test of a guest",
        "E         | [ok]   CPUID 0x8000001f: SEV, C-bit 51, physical address bits reduced by 1",
        "E         | [ok]   MSR 0xc0010131: SEV is active",
        "E         | [ok]   private memory: holds what was written after a switch of CR3",
        "E         | [ok]   shared memory: a device read a request there and wrote its answer",
        "E         | [none] no secret was injected",
        "E         | done",
        "",
        "test_an_expectation_that_is_not_met_ends_at_the_tests_own_line_with_the_last_words.py:4: ConsoleError",
    ]
    assert inner_run.all_ended()


@pytest.mark.parametrize("fixture", ["sevplug_machine", "sevplug_paused_machine"])
def test_a_time_that_passes_shows_the_last_words_and_half_a_line_too(inner_run: InnerRun, fixture: str) -> None:
    outcomes, text = inner_run(
        SPINNING
        + f"""
    def test_prompt({fixture}, record):
        guest = {fixture}(firmware=SPINNING, memory=1 << 20, timeout=0.2)
        record(guest.call(lambda machine: machine))
        guest.call(lambda machine: machine.resume())
        guest.expect("ok>")
        guest.expect("login: ")

    def test_end({fixture}, record):
        guest = {fixture}(firmware=SPINNING, memory=1 << 20)
        record(guest.call(lambda machine: machine))
        guest.call(lambda machine: machine.resume())
        guest.wait(0.2)
        """,
    )
    assert outcomes == {"failed": 2}
    assert re.findall("^E  .*", text, re.MULTILINE) == [
        "E       sevplug.board.console.ConsoleError: b'login: ' did not come within 0.2 s; "
        "the last that the guest said:",
        "E         | ok>",
        "E       sevplug.board.console.ConsoleError: the guest did not end within 0.2 s; the last that the guest said:",
        "E         | ok>",
    ]
    assert "Captured sevplug" not in text  # it has been said
    assert inner_run.all_ended()


def test_a_guest_that_nobody_let_run_is_said_to_be_paused(inner_run: InnerRun) -> None:
    outcomes, text = inner_run(
        """
        def test_forgotten(sevplug_paused_machine, record):
            guest = sevplug_paused_machine()
            record(guest.call(lambda machine: machine))
            guest.expect("done", timeout=0.1)
        """,
    )
    assert outcomes == {"failed": 1}
    assert (
        "b'done' did not come within 0.1 s, and it is paused: QMP's cont, or resume(), lets it run; "
        "the last that the guest said: nothing" in text
    )
    assert inner_run.all_ended()


def test_a_test_that_fails_for_another_reason_shows_its_guests(inner_run: InnerRun) -> None:
    outcomes, text = inner_run(
        """
        def test_passes(sevplug_machine):
            sevplug_machine().expect("CPUID")

        def test_fails(sevplug_machine, sevplug_paused_machine, record):
            halfway, paused = sevplug_machine(), sevplug_paused_machine()
            record(halfway.machine)
            record(paused.call(lambda machine: machine))
            halfway.expect("MSR .*\\r\\n")
            assert 6 * 9 == 42
        """,
    )
    assert outcomes == {"failed": 1, "passed": 1}
    sections = text[text.index("E       assert") : text.index("=== short test summary")].splitlines()
    assert [line.strip("- ") for line in sections if line.startswith(("-", "quit", "it did", "  |"))] == [
        "Captured sevplug paused guest 1 teardown",
        "quit: the test is over; the last that the guest said: nothing",
        "Captured sevplug guest 1 teardown",
        "it did not come to its end; the last that the guest said:",
        "| sevplug self-test of a guest",
        "| [ok]   CPUID 0x8000001f: SEV, C-bit 51, physical address bits reduced by 1",
        "| [ok]   MSR 0xc0010131: SEV is active",
    ]
    assert inner_run.all_ended()


RAISING = """
    import threading

    from sevplug import hookimpl

    class Raising:
        @hookimpl
        def rdmsr(self, index):
            raise RuntimeError("the plug-in's own fault")
"""


def test_an_exception_on_the_machines_thread_is_raised_in_the_test(inner_run: InnerRun) -> None:
    outcomes, text = inner_run(
        RAISING
        + """
    def test_waits(sevplug_paused_machine, record):
        guest = sevplug_paused_machine(plugins=[Raising])
        record(guest.call(lambda machine: machine))
        guest.resume()
        guest.expect("done")

    def test_does_not_wait(sevplug_paused_machine, record):
        guest = sevplug_paused_machine(plugins=[Raising])
        record(guest.call(lambda machine: machine))
        guest.resume()
        for thread in threading.enumerate():
            if thread.name == "sevplug-machine":
                thread.join()
        """,
    )
    assert outcomes == {"failed": 1, "passed": 1, "errors": 1}  # the second fails in its teardown
    assert (
        text.count(
            "E       sevplug.core.errors.PluginError: plug-in 'Raising' failed in rdmsr (RuntimeError: the plug-in"
        )
        == 2
    )
    assert inner_run.all_ended()


def test_a_guest_that_a_test_forgot_in_a_thread_of_its_own_is_ended(inner_run: InnerRun) -> None:
    outcomes, _text = inner_run(
        SPINNING
        + """
    import threading, time

    def test_forgets(sevplug_machine, record):
        guest = sevplug_machine(firmware=SPINNING, memory=1 << 20)
        record(guest.machine)
        threading.Thread(target=guest.wait).start()
        while guest.machine.status != "running":
            time.sleep(0.01)
        """,
    )
    assert outcomes == {"passed": 1}
    assert inner_run.all_ended()


def test_a_plug_in_that_never_returns_is_named_with_its_place_and_keeps_nobody_waiting(
    inner_run: InnerRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine_thread, "_PATIENCE", 0.2)
    started = time.monotonic()
    outcomes, text = inner_run(
        """
        import threading

        from sevplug import hookimpl

        GO_ON = threading.Event()

        class Hanging:
            @hookimpl
            def notify(self, event):
                if event == "run.resume":
                    GO_ON.wait(20)  # for ever, as far as the fixture knows

        def test_hangs(sevplug_paused_machine):
            guest = sevplug_paused_machine(plugins=[Hanging])
            guest.call(lambda machine: machine.control.submit(machine.resume))

        def test_goes_on():
            GO_ON.set()
            for thread in threading.enumerate():
                if thread.name == "sevplug-machine":
                    thread.join()
        """,
    )
    assert time.monotonic() - started < 20  # it did not wait for the plug-in
    assert outcomes == {"passed": 2, "errors": 1}
    assert "SevplugError: the machine did not end within 0.2 s; its thread is in" in text
    assert "GO_ON.wait(20)" in text


def test_one_guest_that_cannot_be_ended_does_not_save_the_others(inner_run: InnerRun) -> None:
    outcomes, text = inner_run(
        """
        from sevplug import hookimpl

        class Raising:
            @hookimpl
            def machine_close(self):
                raise RuntimeError("not now")

        def test_two(sevplug_machine, sevplug_paused_machine, record):
            for guest in (sevplug_machine(), sevplug_machine(plugins=[Raising]), sevplug_machine()):
                record(guest.machine)
            record(sevplug_paused_machine().call(lambda machine: machine))
        """,
    )
    assert outcomes == {"passed": 1, "errors": 1}
    assert "plug-in 'Raising' failed in machine_close (RuntimeError: not now" in text
    assert inner_run.all_ended()


@pytest.mark.parametrize("what", ["KeyboardInterrupt", "pytest.exit('enough')", "SystemExit(3)"])
def test_machines_are_ended_when_the_whole_run_is(inner_run: InnerRun, what: str) -> None:
    _outcomes, text = inner_run(
        f"""
        import pytest

        def test_interrupted(sevplug_machine, sevplug_paused_machine, record):
            guest, paused = sevplug_machine(), sevplug_paused_machine()
            record(guest.machine)
            record(paused.call(lambda machine: machine))
            guest.expect("CPUID")
            paused.resume()
            raise {what}

        def test_never(sevplug_machine):
            assert False
        """,
    )
    assert ("2 failed" in text) == what.startswith("System")  # which pytest takes for a test's failure
    assert inner_run.all_ended()


def test_ctrl_c_in_a_guest_that_loops_ends_the_run(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        SPINNING
        + """
    import os, signal, threading

    def test_loops(sevplug_machine):
        guest = sevplug_machine(firmware=SPINNING, memory=1 << 20)
        guest.machine.engine  # imported, built, and about to run
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
        guest.wait(60)
        """
    )
    result = pytester.runpytest_subprocess(*QUICKLY, timeout=50)
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.fnmatch_lines(["*KeyboardInterrupt*"])
    assert "error" not in result.stderr.str().lower()


def test_patience_is_bounded() -> None:
    assert machine_thread._PATIENCE <= 10 >= guest._PATIENCE
    assert factories.DEFAULT_TIMEOUT <= 60
