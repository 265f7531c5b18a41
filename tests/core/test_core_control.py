"""Requests from other threads: they run on the machine's thread, once, and nobody waits for ever."""

from __future__ import annotations

import threading
from concurrent.futures import CancelledError, Future

import pytest
from assembler import assemble
from machines import machine_with

from sevplug.core.control import Control


def test_a_request_runs_when_the_machine_serves_and_on_its_thread() -> None:
    control = Control()
    future = control.submit(threading.get_ident)
    assert control.waiting
    assert not future.done()
    control.serve()
    assert future.result(timeout=0) == threading.get_ident()
    assert not control.waiting


def test_requests_run_in_the_order_of_posting() -> None:
    control = Control()
    ran: list[int] = []
    for number in range(5):
        control.submit(lambda number=number: ran.append(number))  # type: ignore[misc]
    control.serve()
    assert ran == list(range(5))


def test_an_exception_belongs_to_the_one_who_asked() -> None:
    control = Control()
    failing = control.submit(lambda: 1 // 0)
    after = control.submit(lambda: "still served")
    control.serve()
    with pytest.raises(ZeroDivisionError):
        failing.result(timeout=0)
    assert after.result(timeout=0) == "still served"


def test_a_request_that_was_cancelled_is_not_run() -> None:
    control = Control()
    ran: list[int] = []
    future = control.submit(lambda: ran.append(1))
    assert future.cancel()
    control.serve()
    assert ran == []


def test_posting_kicks_the_machine() -> None:
    control = Control()
    kicks: list[bool] = []
    control.kick = lambda: kicks.append(control.waiting)
    control.submit(lambda: None)
    assert kicks == [True]


def test_closing_cancels_what_waits_and_refuses_what_comes() -> None:
    control = Control()
    waiting = control.submit(lambda: 1)
    control.close()
    late = control.submit(lambda: 2)
    for future in (waiting, late):
        with pytest.raises(CancelledError):
            future.result(timeout=0)
    assert not control.waiting


def test_a_request_that_crosses_the_end_is_answered_and_kicks_before_it() -> None:
    control = Control()
    order: list[str] = []
    kicking, closing = threading.Event(), threading.Event()

    def kick() -> None:
        kicking.set()
        # The closing thread is on its way, and has to wait until this request is in.
        assert closing.wait(10)
        order.append("kicked")

    def close() -> None:
        assert kicking.wait(10)
        closing.set()
        control.close()
        order.append("closed")

    control.kick = kick
    closer = threading.Thread(target=close)
    closer.start()
    future = control.submit(lambda: 1)
    closer.join()
    assert future.cancelled()
    assert order == ["kicked", "closed"]


def test_an_interrupt_ends_the_wait_of_the_one_who_asked_and_goes_on() -> None:
    control = Control()

    def interrupted() -> None:
        raise KeyboardInterrupt

    future = control.submit(interrupted)
    with pytest.raises(KeyboardInterrupt):
        control.serve()
    with pytest.raises(KeyboardInterrupt):
        future.result(timeout=0)


def test_serving_with_a_timeout_wakes_for_the_first_request() -> None:
    control = Control()
    answers: list[Future[str]] = []
    poster = threading.Thread(target=lambda: answers.append(control.submit(lambda: "here")))
    poster.start()
    control.serve(timeout=10)
    poster.join()
    assert answers[0].result(timeout=0) == "here"


def test_serving_without_a_request_comes_back() -> None:
    control = Control()
    control.serve()
    control.serve(timeout=0.001)
    assert not control.waiting


def test_many_threads_get_each_their_own_answer() -> None:
    control = Control()
    results: dict[int, int] = {}

    def ask(number: int) -> None:
        results[number] = control.submit(lambda: number * number).result(timeout=10)

    askers = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for asker in askers:
        asker.start()
    while len(results) < len(askers):
        control.serve(timeout=0.01)
    for asker in askers:
        asker.join()
    assert results == {number: number * number for number in range(8)}


def test_a_running_guest_answers_another_thread_between_two_instructions() -> None:
    with machine_with(assemble("1: inc eax; jmp 1b")) as (machine, _board):
        ident: list[int] = []

        def look_and_quit() -> None:
            ident.append(machine.control.submit(threading.get_ident).result(timeout=5))
            machine.control.submit(machine.quit).result(timeout=5)

        asker = threading.Thread(target=look_and_quit)
        asker.start()
        result = machine.run(timeout=10)
        asker.join()
    assert result.result == "quit"
    assert ident == [threading.get_ident()]


def test_whoever_waits_for_a_machine_that_ends_is_told() -> None:
    with machine_with(assemble("out 0xf4, al")) as (machine, _board):
        machine.run(timeout=5)
        future = machine.control.submit(lambda: "too late")
    with pytest.raises(CancelledError):
        future.result(timeout=0)
