"""A budget of CPU time, as a token bucket."""

from hypothesis import given
from hypothesis import strategies as st

from binfmtd.daemon.cpu_budget import CpuBudget

CAPACITY, REFILL = 0.2, 0.02


def test_work_is_free_until_the_budget_is_spent() -> None:
    budget = CpuBudget(CAPACITY, REFILL)
    budget.spend(0.19, 100.0)
    assert budget.free_at() <= 100.0
    budget.spend(0.02, 100.0)
    assert budget.free_at() == 100.0 + 0.01 / REFILL


def test_another_share() -> None:
    """A share that is used from now on refills the bucket at its own rate; what was refilled before stays."""
    budget = CpuBudget(CAPACITY, REFILL)
    budget.spend(CAPACITY, 100.0)
    budget.use_limits(CAPACITY, REFILL / 2, 105.0)  # 0.1 s have been refilled
    budget.spend(0.11, 105.0)
    assert abs(budget.free_at() - (105.0 + 0.01 / (REFILL / 2))) < 1e-6


def test_a_smaller_bucket() -> None:
    """Of what was saved, a smaller bucket keeps what it can hold."""
    budget = CpuBudget(CAPACITY, REFILL)
    budget.use_limits(0.05, REFILL, 100.0)
    budget.spend(0.06, 100.0)
    assert abs(budget.free_at() - (100.0 + 0.01 / REFILL)) < 1e-6


def test_the_longest_wait() -> None:
    """Work that costs more than is refilled in the longest wait, as on a slow processor, is followed by that wait."""
    budget = CpuBudget(CAPACITY, REFILL, longest_wait=3.0)
    for now in (100.0, 103.0):
        budget.spend(CAPACITY * 2, now)
        assert abs(budget.free_at() - (now + 3.0)) < 1e-6


@given(st.lists(st.tuples(st.floats(0, 5), st.floats(0, 0.05)), min_size=1))
def test_the_long_run(work: list[tuple[float, float]]) -> None:
    """Work that waits until it is free takes its share, the capacity and the last piece at most."""
    budget, now, spent = CpuBudget(CAPACITY, REFILL), 0.0, 0.0
    for pause, cost in work:
        now = max(now + pause, budget.free_at())
        assert spent <= CAPACITY + now * REFILL + 1e-9
        budget.spend(cost, now)
        spent += cost
