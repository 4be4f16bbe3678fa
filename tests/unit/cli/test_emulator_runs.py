"""``binfmtd sandbox --emulators``: the rows of the table."""

import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from binfmtd.cli.emulator_runs import Run, document, row
from binfmtd.cli.sandboxed_command import TIMED_OUT, Outcome


@given(st.integers(0, 255), st.floats(0, 1e6))
def test_rows(status: int, seconds: float) -> None:
    """Status and signal of a row are those of the outcome: the signal's number is 128 less than the status."""
    run = Run("9.2.2", Outcome(status, seconds))
    found = document(run)
    assert (found["version"], found["status"], found["timed_out"]) == ("9.2.2", status, False)
    number = signal.Signals[str(found["signal"])].value if found["signal"] else None
    assert number == (status - 128 if status - 128 in set(signal.Signals) else None)
    _, text, time = row(run)
    assert text == (f"{status} ({found['signal']})" if number else str(status))
    assert time.endswith(" s")
    assert float(time[:-2]) == pytest.approx(seconds, abs=0.006)


def test_a_timeout() -> None:
    """A run that was killed at its time limit has no exit status of its own."""
    run = Run("9.2.2", Outcome(TIMED_OUT, 60.001, timed_out=True))
    assert row(run) == ("9.2.2", "timeout", "60.00 s")
    assert document(run) == {
        "version": "9.2.2",
        "status": None,
        "signal": None,
        "timed_out": True,
        "seconds": 60.001,
    }
