"""Each deadline of the loop is listed once, with its callback."""

from binfmtd.daemon.timers import Timer, Timers

NEVER = float("inf")


def test_the_earliest_is_next_and_all_that_are_due_are_called_in_order() -> None:
    """A deadline at this very moment is due; one that has not come, or never will, is not called."""
    called: list[tuple[str, float]] = []
    due = {"a": 3.0, "b": NEVER, "c": 2.0, "d": 5.0}
    timers = Timers([Timer(lambda n=n: due[n], lambda now, n=n: called.append((n, now))) for n in due])  # type: ignore[misc]
    assert timers.next() == 2.0
    timers.run(3.0)
    assert called == [("a", 3.0), ("c", 3.0)]
    due["a"] = due["c"] = due["d"] = NEVER
    assert timers.next() == NEVER


def test_a_callback_may_move_a_later_deadline() -> None:
    """A deadline that an earlier callback moves away is not called, and one that it makes due is."""
    due, called = {"a": 1.0, "b": 1.0, "c": NEVER}, []

    def first(_: float) -> None:
        due.update(a=NEVER, b=NEVER, c=1.0)

    timers = Timers(
        [
            Timer(lambda: due["a"], first),
            Timer(lambda: due["b"], lambda _: called.append("b")),
            Timer(lambda: due["c"], lambda _: called.append("c")),
        ]
    )
    timers.run(1.0)
    assert called == ["c"]
