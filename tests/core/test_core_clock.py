"""Virtual time and its timers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sevplug.core.clock import NEVER, Clock, HostClock, Timer


class Log:
    """Timers that write their names and the time at which they ran."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.ran: list[tuple[str, int]] = []

    def timer(self, name: str, then: Callable[[], None] = lambda: None) -> Timer:
        def callback() -> None:
            self.ran.append((name, self.clock.now))
            then()

        return Timer(callback)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_time_starts_at_zero_and_passes_only_when_it_is_told_to(clock: Clock) -> None:
    assert clock.now == 0
    clock.advance(1500)
    clock.advance(500)
    assert clock.now == 2000


def test_timers_run_in_the_order_of_their_deadlines(clock: Clock) -> None:
    log = Log(clock)
    for name, deadline in (("third", 30), ("first", 10), ("second", 20)):
        clock.start(log.timer(name), deadline)
    clock.advance(100)
    clock.run_due()
    assert [name for name, _now in log.ran] == ["first", "second", "third"]


def test_timers_of_one_deadline_run_in_the_order_of_starting(clock: Clock) -> None:
    log = Log(clock)
    for name in "abc":
        clock.start(log.timer(name), 10)
    clock.advance(10)
    clock.run_due()
    assert [name for name, _now in log.ran] == ["a", "b", "c"]


def test_a_timer_runs_at_its_deadline_and_not_before(clock: Clock) -> None:
    log = Log(clock)
    clock.start(log.timer("t"), 10)
    clock.advance(9)
    clock.run_due()
    assert log.ran == []
    clock.advance(1)
    clock.run_due()
    assert log.ran == [("t", 10)]


def test_advance_alone_runs_nothing(clock: Clock) -> None:
    log = Log(clock)
    clock.start(log.timer("t"), 10)
    clock.advance(100)
    assert log.ran == []


def test_a_timer_that_ran_is_disarmed(clock: Clock) -> None:
    log = Log(clock)
    timer = log.timer("t")
    clock.start(timer, 10)
    assert timer.deadline == 10
    clock.advance(10)
    clock.run_due()
    clock.advance(100)
    clock.run_due()
    assert (len(log.ran), clock.next_deadline) == (1, NEVER)
    assert not timer.deadline


@pytest.mark.parametrize(("first", "second"), [(10, 50), (50, 10)])
def test_rearming_forgets_the_earlier_deadline(clock: Clock, first: int, second: int) -> None:
    log = Log(clock)
    timer = log.timer("t")
    clock.start(timer, first)
    clock.start(timer, second)
    assert clock.next_deadline == second
    clock.advance(100)
    clock.run_due()
    assert len(log.ran) == 1


def test_a_cancelled_timer_does_not_run(clock: Clock) -> None:
    log = Log(clock)
    gone, kept = log.timer("gone"), log.timer("kept")
    clock.start(gone, 10)
    clock.start(kept, 20)
    clock.cancel(gone)
    clock.cancel(gone)
    assert (gone.deadline, clock.next_deadline) == (None, 20)
    clock.advance(100)
    clock.run_due()
    assert [name for name, _now in log.ran] == ["kept"]


def test_a_cancelled_timer_can_be_started_again(clock: Clock) -> None:
    log = Log(clock)
    timer = log.timer("t")
    clock.start(timer, 10)
    clock.cancel(timer)
    clock.start(timer, 30)
    assert clock.skip_to_next()
    clock.run_due()
    assert log.ran == [("t", 30)]


def test_a_callback_may_rearm_its_own_timer(clock: Clock) -> None:
    log = Log(clock)
    timer = log.timer("tick", lambda: clock.start(timer, clock.now + 10))
    clock.start(timer, 10)
    for _ in range(3):
        assert clock.skip_to_next()
        clock.run_due()
    assert log.ran == [("tick", 10), ("tick", 20), ("tick", 30)]


def test_a_periodic_timer_that_is_late_catches_up(clock: Clock) -> None:
    log = Log(clock)
    due = [10]

    def again() -> None:
        due[0] += 10
        clock.start(timer, due[0])

    timer = log.timer("tick", again)
    clock.start(timer, 10)
    clock.advance(35)
    clock.run_due()
    assert len(log.ran) == 3
    assert clock.next_deadline == 40


def test_a_callback_may_cancel_a_timer_that_is_due_too(clock: Clock) -> None:
    log = Log(clock)
    victim = log.timer("victim")
    clock.start(log.timer("first", lambda: clock.cancel(victim)), 10)
    clock.start(victim, 10)
    clock.advance(10)
    clock.run_due()
    assert [name for name, _now in log.ran] == ["first"]


def test_skipping_goes_to_the_next_deadline_and_never_back(clock: Clock) -> None:
    log = Log(clock)
    assert not clock.skip_to_next()
    clock.start(log.timer("t"), 70)
    assert clock.skip_to_next()
    assert clock.now == 70
    clock.advance(30)
    assert clock.skip_to_next()
    assert clock.now == 100


@given(st.lists(st.tuples(st.integers(0, 3), st.one_of(st.none(), st.integers(0, 50))), max_size=30))
def test_any_starts_and_cancels_leave_what_a_plain_table_says(steps: list[tuple[int, int | None]]) -> None:
    clock = Clock()
    log = Log(clock)
    timers = [log.timer(str(number)) for number in range(4)]
    armed: dict[int, tuple[int, int]] = {}
    for order, (number, deadline) in enumerate(steps):
        if deadline is None:
            clock.cancel(timers[number])
            armed.pop(number, None)
        else:
            clock.start(timers[number], deadline)
            armed[number] = (deadline, order)
        assert clock.next_deadline == min((when for when, _order in armed.values()), default=NEVER)
    clock.advance(50)
    clock.run_due()
    assert [int(name) for name, _now in log.ran] == sorted(armed, key=lambda number: armed[number])


def test_the_host_clock_follows_the_host_whatever_an_event_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    host = [5_000]
    monkeypatch.setattr("sevplug.core.clock.time.monotonic_ns", lambda: host[0])
    clock = HostClock()
    host[0] += 250
    clock.advance(1_000_000)
    assert clock.now == 250


def test_the_host_clock_sleeps_in_short_steps_towards_a_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    host = [0]
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        host[0] += round(seconds * 1e9)

    monkeypatch.setattr("sevplug.core.clock.time.monotonic_ns", lambda: host[0])
    monkeypatch.setattr("sevplug.core.clock.time.sleep", sleep)
    clock = HostClock()
    log = Log(clock)
    assert not clock.skip_to_next()
    clock.start(log.timer("t"), 25_000_000)
    while not log.ran:
        assert clock.skip_to_next()
        clock.run_due()
    assert slept == [0.01, 0.01, 0.005]


def test_the_host_clock_stands_still_while_the_guest_does(monkeypatch: pytest.MonkeyPatch) -> None:
    host = [1000]
    monkeypatch.setattr("sevplug.core.clock.time.monotonic_ns", lambda: host[0])
    clock = HostClock()
    clock.go_on()
    host[0] += 100
    clock.stand_still()
    clock.stand_still()
    host[0] += 5000
    clock.catch_up()
    assert clock.now == 100
    clock.go_on()
    host[0] += 20
    clock.catch_up()
    assert clock.now == 120
