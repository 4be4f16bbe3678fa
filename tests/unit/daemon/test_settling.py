"""The clock of the two-step repair; each test sets the times."""

from binfmtd.daemon.settling import LONGEST, Settling

SETTLE = 0.020


def drifted(name: str = "a", at: float = 100.0) -> Settling:
    settling = Settling(SETTLE)
    settling.drifted(name, at)
    return settling


def test_a_drift_is_due_when_it_has_been_quiet() -> None:
    """A drift is due `settle` seconds after it if no other program touches the name."""
    settling = drifted()
    assert settling.pending() == {"a"}
    assert settling.due_at("a") == 100.0 + SETTLE


def test_whoever_stirs_puts_it_off() -> None:
    """Quiet begins anew with each event on the name, and with each on `register` or `status`."""
    settling = drifted()
    settling.record_touch(["a", "b"], 100.010)
    assert settling.due_at("a") == 100.010 + SETTLE
    settling.record_touch([], 100.015, everything=True)
    assert settling.due_at("a") == 100.015 + SETTLE


def test_others_names_do_not_put_it_off() -> None:
    """An event on another name does not delay this one, and does not make that name pending."""
    settling = drifted()
    settling.record_touch(["b"], 100.010)
    assert settling.due_at("a") == 100.0 + SETTLE
    assert settling.pending() == {"a"}


def test_a_stir_before_the_drift_counts() -> None:
    """An event before the drift counts: a program that has flushed everything may be about to write."""
    settling = Settling(SETTLE)
    settling.record_touch([], 100.0, everything=True)
    settling.drifted("a", 99.99)
    assert settling.due_at("a") == 100.0 + SETTLE


def test_at_the_latest_one_second_after_the_drift() -> None:
    """A drift is due after one second, however many events come, and however often it drifts again."""
    settling = drifted()
    for tenth in range(12):
        now = 100.0 + tenth / 10
        settling.record_touch(["a"], now, everything=True)
        settling.drifted("a", now)
    assert settling.due_at("a") == 100.0 + LONGEST == 101.0
    assert not settling.forced("a", 100.999)
    assert settling.forced("a", 101.0)


def test_what_ended_is_forgotten() -> None:
    """A later drift of the same name has its own second."""
    settling = drifted()
    assert settling.ended("a")
    assert not settling.ended("a")
    assert not settling.pending()
    assert not settling.forced("a", 1000.0)
    settling.drifted("a", 200.0)
    assert settling.due_at("a") == 200.0 + SETTLE
    assert not settling.forced("a", 200.5)


def test_what_is_not_pending_is_due_when_everything_is_quiet() -> None:
    """A name that is not pending (a removal, say) is due when all is quiet; at once if there never was an event."""
    settling = Settling(SETTLE)
    assert settling.due_at("x") == float("-inf")
    settling.record_touch(["x"], 100.0)
    assert settling.due_at("x") == float("-inf")
    settling.record_touch([], 100.0, everything=True)
    assert settling.due_at("x") == 100.0 + SETTLE


def test_what_was_left_calls_for_another_pass_later() -> None:
    """A name that was left calls for a pass later, so that passes do not follow one another.

    It is due all the same, and its second is not restarted.
    """
    settling = drifted()
    settling.left("a", 100.5)
    assert (settling.due_at("a"), settling.calls_at("a")) == (100.0 + SETTLE, 100.5 + SETTLE)
    settling.left("a", 100.99)
    assert settling.calls_at("a") == 100.0 + LONGEST
    settling.left("a", 101.5)
    assert settling.calls_at("a") == 101.5 + SETTLE
    assert settling.forced("a", 101.0)
