"""Messages: the fault, its place and the remedy, in a line that a person can read."""

from binfmtd.errors import LONGEST, ConfigError, FormatError


def test_a_long_value_is_cut_in_the_middle() -> None:
    """A long value is cut in the middle: the file at the beginning and the remedy at the end are what helps."""
    inner = FormatError(f"{'x' * 1_000_000!r} is too long: shorten it")
    message = str(ConfigError(f"/etc/binfmtd/binfmtd.toml: handlers.a: {inner}"))
    assert len(message) <= LONGEST + 100
    assert message.startswith("/etc/binfmtd/binfmtd.toml: handlers.a: 'xxx")
    assert message.endswith("xxx' is too long: shorten it")
    assert str(FormatError("x" * LONGEST)) == "x" * LONGEST
