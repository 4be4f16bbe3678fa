import pytest

from binfmtd.report.durations import age, duration, utc

AT = "2026-01-02T03:04:05.678+00:00"
THEN = 1767323045.678


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 ms"),
        (0.000042, "0.042 ms"),
        (0.00034, "0.34 ms"),
        (0.0031, "3.1 ms"),
        (0.0431, "43 ms"),
        (0.999, "999 ms"),
        (1.24, "1.2 s"),
        (59, "59 s"),
        (150, "2 min"),
        (7200, "2 h"),
        (864000, "10 d"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("later", "text"),
    [(-50, "just now"), (0.5, "just now"), (1, "1 s ago"), (119, "1 min ago"), (120, "2 min ago"), (90000, "1 d ago")],
)
def test_age(later: float, text: str) -> None:
    """An age has whole units only, and a time in the future, after a clock was set back, is just now."""
    assert age(AT, THEN + later) == text


def test_a_time() -> None:
    """A time has whole seconds, and its zone."""
    assert utc(AT) == "2026-01-02 03:04:05 UTC"
