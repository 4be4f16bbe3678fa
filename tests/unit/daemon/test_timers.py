"""Each deadline of the loop is listed once, with its callback."""

from types import SimpleNamespace

from binfmtd.daemon.timers import Timer, Timers

NEVER = float("inf")


def test_the_earliest_is_next_and_all_that_are_due_are_called_in_order() -> None:
    """A deadline at this very moment is due; one that has not come, or never will, is not called."""
    called: list[tuple[str, float]] = []
    due = {"a": 3.0, "b": NEVER, "c": 2.0, "d": 5.0}
    owners = {name: SimpleNamespace(due_at=at) for name, at in due.items()}
    timers = Timers([Timer(owners[n], lambda now, n=n: called.append((n, now))) for n in due])  # type: ignore[misc]
    assert timers.next() == 2.0
    timers.run(3.0)
    assert called == [("a", 3.0), ("c", 3.0)]
    for owner in owners.values():
        owner.due_at = NEVER
    assert timers.next() == NEVER


def test_a_callback_may_move_a_later_deadline() -> None:
    """A deadline that an earlier callback moves away is not called, and one that it makes due is."""
    called: list[str] = []
    a, b, c = (SimpleNamespace(due_at=at) for at in (1.0, 1.0, NEVER))

    def first(_: float) -> None:
        a.due_at, b.due_at, c.due_at = NEVER, NEVER, 1.0

    timers = Timers([Timer(a, first), Timer(b, lambda _: called.append("b")), Timer(c, lambda _: called.append("c"))])
    timers.run(1.0)
    assert called == ["c"]
