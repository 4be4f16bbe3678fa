from hypothesis import given
from hypothesis import strategies as st

from binfmtd.daemon.history import LENGTH, History


@given(numbers=st.lists(st.integers(), max_size=3 * LENGTH))
def test_the_last_hundred(numbers: list[int]) -> None:
    """In the order in which they came."""
    history = History()
    for number in numbers:
        history.add("now", "drift_found", {"entry": str(number)})
    assert [row["entry"] for row in history.rows()] == [str(number) for number in numbers[-LENGTH:]]


def test_a_flush_of_thousands_is_one_short_row() -> None:
    """Forty names, and how many more."""
    history = History()
    history.add("now", "drift_found", {"entries": [str(number) for number in range(1000)], "drift": "missing"})
    (row,) = history.rows()
    assert (len(row["entries"]), row["more"], row["drift"]) == (40, 960, "missing")
