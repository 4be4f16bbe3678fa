"""The limit for the CPU time of looks that find nothing; each test sets the times."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from binfmtd.daemon.throttle import (
    BUDGET,
    CHECK_SECONDS,
    CHECKS_SHARE,
    CONTENDED_BUDGET,
    LONGEST_PAUSE,
    PASSES,
    REFILL,
    SHARE,
    EventThrottle,
)


def test_a_burst_is_listened_to() -> None:
    """Looks that fit into the budget delay no reading of events."""
    throttle = EventThrottle()
    for number in range(100):
        throttle.charge_look(BUDGET / 100, 5 + number / 1e6)
        assert throttle.read_at <= 5 + number / 1e6 + 1e-9


def test_events_are_read_after_three_seconds_at_most() -> None:
    """With the budget spent, events are read after three seconds at most, whatever was spent before.

    It takes longer if one look would cost more than its share of a core in that time.
    """
    throttle = EventThrottle()
    for _ in range(100):
        throttle.charge_look(LONGEST_PAUSE * SHARE, 100.0)
    assert throttle.read_at == pytest.approx(100.0 + LONGEST_PAUSE)
    throttle.charge_look(0.06, 103.0)
    assert throttle.read_at == pytest.approx(103.0 + 0.06 / SHARE)


@pytest.mark.parametrize("cost", [BUDGET, 10 * BUDGET])
def test_some_passes_are_always_free(cost: float) -> None:
    """However long passes take, the budget pays for some; the next waits until it takes its share of a core."""
    throttle = EventThrottle()
    for _ in range(PASSES):
        throttle.charge_pass(cost, 100.0)
        assert throttle.read_at <= 100.0 + 1e-9
    throttle.charge_pass(cost, 100.0)
    assert throttle.read_at == pytest.approx(100.0 + cost / SHARE)
    throttle.charge_pass(REFILL, 100.0)  # passes have become short again, and so has the pause
    assert throttle.read_at == pytest.approx(100.0 + LONGEST_PAUSE)


def test_less_is_free_while_the_daemon_backs_off() -> None:
    """While the daemon backs off from a name, the budget is smaller; passes that take long are paid for as before."""
    contended = ["name"]
    throttle = EventThrottle(lambda: contended)
    throttle.charge_look(CONTENDED_BUDGET, 100.0)
    assert throttle.read_at <= 100.0 + 1e-9
    throttle.charge_look(REFILL, 100.0)
    assert throttle.read_at == pytest.approx(101.0)
    contended.clear()
    throttle.charge_look(REFILL, 101.0)
    assert throttle.read_at <= 101.0 + 1e-9
    contended.append("name")
    for _ in range(100):
        throttle.charge_look(REFILL, 101.0)
    assert throttle.read_at == pytest.approx(101.0 + LONGEST_PAUSE)


def test_quiet_pays_it_back() -> None:
    """A minute without looks refills the budget by a minute's worth."""
    throttle = EventThrottle()
    throttle.charge_look(BUDGET, 100.0)
    throttle.charge_look(60 * REFILL, 160.0)
    assert throttle.read_at <= 160.0 + 1e-9
    throttle.charge_look(REFILL / 2, 160.0)
    assert 160.4 < throttle.read_at < 160.6


@given(costs=st.lists(st.floats(0, REFILL * LONGEST_PAUSE), max_size=200))
def test_over_a_long_time_it_costs_what_refills(costs: list[float]) -> None:
    """However often there is something to look at, a caller that keeps to ``read_at`` spends what refills."""
    throttle = EventThrottle()
    now = began = 1000.0
    for cost in costs:
        throttle.charge_look(cost, now)
        now = max(now, throttle.read_at)
    assert sum(costs) <= BUDGET + REFILL * (now - began) + 1e-6


def test_in_a_storm_inode_numbers_are_compared() -> None:
    """While events are not read, inode numbers are compared ten times a second; never otherwise."""
    throttle = EventThrottle()
    assert throttle.check_at == float("inf")
    throttle.charge_look(BUDGET + REFILL, 100.0)  # a second's worth too much
    assert throttle.check_at == 100.0 + CHECK_SECONDS
    throttle.checked(0.0, 100.5)
    assert throttle.check_at == 100.5 + CHECK_SECONDS
    throttle.checked(0.0, 100.95)
    assert throttle.check_at == float("inf"), "events are read first"


def test_where_comparisons_take_long_there_are_fewer() -> None:
    """Comparisons take their share of a core and no more; one that takes longer now and then changes little."""
    throttle = EventThrottle()
    throttle.charge_look(20.0, 100.0)
    throttle.checked(2 * CHECK_SECONDS * CHECKS_SHARE, 100.0)
    assert throttle.check_at == 100.0 + CHECK_SECONDS
    for _ in range(100):
        throttle.checked(2 * CHECK_SECONDS * CHECKS_SHARE, 100.0)
    assert throttle.check_at == pytest.approx(100.0 + 2 * CHECK_SECONDS, rel=1e-3)
