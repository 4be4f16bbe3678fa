"""How much looking for nothing may cost; the times are the tests' own."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from binfmtd.daemon.storm import BUDGET, GLANCE, GLANCES_SHARE, LONGEST_PAUSE, PASSES, REFILL, SHARE, Storm


def test_a_burst_is_listened_to() -> None:
    """What fits into the budget delays nothing."""
    storm = Storm()
    for number in range(100):
        storm.looked_for_nothing(BUDGET / 100, 5 + number / 1e6)
        assert storm.listen_at <= 5 + number / 1e6 + 1e-9


def test_whoever_goes_on_is_heard_three_seconds_later_at_most() -> None:
    """Whatever was spent before; later where a look takes so much that it would cost too much of a core."""
    storm = Storm()
    for _ in range(100):
        storm.looked_for_nothing(LONGEST_PAUSE * SHARE, 100.0)
    assert storm.listen_at == pytest.approx(100.0 + LONGEST_PAUSE)
    storm.looked_for_nothing(0.06, 103.0)
    assert storm.listen_at == pytest.approx(103.0 + 0.06 / SHARE)


@pytest.mark.parametrize("cost", [BUDGET, 10 * BUDGET])
def test_some_passes_are_always_free(cost: float) -> None:
    """However long one takes; the next has to wait, as long as it takes its share of a core."""
    storm = Storm()
    for _ in range(PASSES):
        storm.passed_for_nothing(cost, 100.0)
        assert storm.listen_at <= 100.0 + 1e-9
    storm.passed_for_nothing(cost, 100.0)
    assert storm.listen_at == pytest.approx(100.0 + cost / SHARE)
    storm.passed_for_nothing(REFILL, 100.0)  # they take no longer any more: nor does the pause
    assert storm.listen_at == pytest.approx(100.0 + LONGEST_PAUSE)


def test_quiet_pays_it_back() -> None:
    """After a minute without, there is a minute's worth to spend."""
    storm = Storm()
    storm.looked_for_nothing(BUDGET, 100.0)
    storm.looked_for_nothing(60 * REFILL, 160.0)
    assert storm.listen_at <= 160.0 + 1e-9
    storm.looked_for_nothing(REFILL / 2, 160.0)
    assert 160.4 < storm.listen_at < 160.6


@given(costs=st.lists(st.floats(0, REFILL * LONGEST_PAUSE), max_size=200))
def test_over_a_long_time_it_costs_what_refills(costs: list[float]) -> None:
    """However often there would be something to look at, for whoever keeps to ``listen_at``."""
    storm = Storm()
    now = began = 1000.0
    for cost in costs:
        storm.looked_for_nothing(cost, now)
        now = max(now, storm.listen_at)
    assert sum(costs) <= BUDGET + REFILL * (now - began) + 1e-6


def test_in_a_storm_the_declared_names_are_glanced_at() -> None:
    """Ten times a second as long as nobody listens; never otherwise."""
    storm = Storm()
    assert storm.glance_at == float("inf")
    storm.looked_for_nothing(BUDGET + REFILL, 100.0)  # a second's worth too much
    assert storm.glance_at == 100.0 + GLANCE
    storm.glanced(0.0, 100.5)
    assert storm.glance_at == 100.5 + GLANCE
    storm.glanced(0.0, 100.95)
    assert storm.glance_at == float("inf"), "it is listened to first"


def test_where_glances_take_long_there_are_fewer() -> None:
    """They take their share of a core and no more; one that takes longer now and then changes little."""
    storm = Storm()
    storm.looked_for_nothing(20.0, 100.0)
    storm.glanced(2 * GLANCE * GLANCES_SHARE, 100.0)
    assert storm.glance_at == 100.0 + GLANCE
    for _ in range(100):
        storm.glanced(2 * GLANCE * GLANCES_SHARE, 100.0)
    assert storm.glance_at == pytest.approx(100.0 + 2 * GLANCE, rel=1e-3)
