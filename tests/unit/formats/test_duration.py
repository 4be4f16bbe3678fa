"""Durations as people write them."""

import pytest

from binfmtd.errors import FormatError
from binfmtd.formats.duration import parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("5m", 300), ("20ms", 0.02), ("1h30m", 5400), ("90s", 90), ("1h1m1s1ms", 3661.001), ("0s", 0), ("1m5ms", 60.005)],
)
def test_numbers_with_units(text: str, seconds: float) -> None:
    """A duration is one number or more with units, the largest unit first."""
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "20", "s", "1m1h", "-1m", "1.5s", "1 s", "\u0661s"])
def test_what_is_none(text: str) -> None:
    """Any other text is refused, without a guess."""
    with pytest.raises(FormatError, match="is not a duration: write whole numbers with units"):
        parse_duration(text)
