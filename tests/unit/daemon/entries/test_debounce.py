"""The clock of the two-step repair; each test sets the times."""

from binfmtd.daemon.entries.debounce import LONGEST, Debounce

SETTLE = 0.020
NEVER = float("-inf")


def test_a_drift_is_due_when_it_has_been_quiet() -> None:
    """A drift is due `settle` seconds after it if no other program touches the name."""
    assert Debounce(100.0).due_at(SETTLE, NEVER) == 100.0 + SETTLE


def test_each_event_puts_it_off() -> None:
    """Quiet begins anew with each event on the name, and with each that concerns all names."""
    debounce = Debounce(100.0)
    debounce.touched(100.010)
    assert debounce.due_at(SETTLE, NEVER) == 100.010 + SETTLE
    assert debounce.due_at(SETTLE, 100.015) == 100.015 + SETTLE


def test_an_event_before_the_drift_counts() -> None:
    """An event before the drift counts: a program that has flushed everything may be about to write."""
    assert Debounce(99.99).due_at(SETTLE, 100.0) == 100.0 + SETTLE


def test_at_the_latest_one_second_after_the_drift() -> None:
    """A drift is due after one second, however many events come."""
    debounce = Debounce(100.0)
    for tenth in range(12):
        debounce.touched(100.0 + tenth / 10)
    assert debounce.due_at(SETTLE, 101.1) == 100.0 + LONGEST == 101.0
    assert not debounce.is_over(100.999)
    assert debounce.is_over(101.0)


def test_it_calls_for_no_pass_while_no_events_are_read() -> None:
    """While events are not read a name cannot be known to be quiet, so it calls when its second is over."""
    debounce = Debounce(100.0)
    assert debounce.calls_at(SETTLE, NEVER, 100.5) == 100.5
    assert debounce.calls_at(SETTLE, NEVER, 103.0) == 100.0 + LONGEST


def test_what_was_deferred_calls_for_another_pass_later() -> None:
    """A name that was deferred calls for a pass later, so that passes do not follow one another.

    It is due all the same, and its second is not restarted.
    """
    debounce = Debounce(100.0)
    debounce.deferred(100.5, SETTLE)
    assert (debounce.due_at(SETTLE, NEVER), debounce.calls_at(SETTLE, NEVER)) == (100.0 + SETTLE, 100.5 + SETTLE)
    debounce.deferred(100.99, SETTLE)
    assert debounce.calls_at(SETTLE, NEVER) == 100.0 + LONGEST
    debounce.deferred(101.5, SETTLE)
    assert debounce.calls_at(SETTLE, NEVER) == 101.5 + SETTLE
    assert debounce.is_over(101.0)
