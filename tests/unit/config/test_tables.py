"""Keys of many parts, which would take hours, are refused; a text that only contains many dots is not."""

import pytest

from binfmtd.config.tables import tables

MANY = 20_000


@pytest.mark.parametrize(
    "text",
    [
        "a." * MANY + "a = 1",
        "[" + "a." * MANY + "a]",
        '"a b".' * MANY + "a = 1",
        "x = [{y = {" + "a." * MANY + "a = 1}}]",
        'x = {y = """it\'s\n""", ' + "a." * MANY + "a = 1}",
        "[" + "a." * 1000 + "a]\n" + "".join(f"b{number}.c = 1\n" for number in range(MANY)),
    ],
    ids=["key", "header", "quoted", "inline", "after a text", "below a header"],
)
def test_a_key_of_many_parts(text: str) -> None:
    """A key of many parts is refused however its parts are written, and the message has the line."""
    line = 2 if text.startswith("x = {") else 1
    with pytest.raises(ValueError, match=rf"too many keys joined by dots \(at line {line}, \d+ dots\)"):
        tables(text)


@pytest.mark.parametrize(
    "text",
    [
        "a." * 100 + "a = 1",
        "# " + "." * 100 + "\n" + "a = 1.5\n" * 1,
        "a = [" + "'python3.1', " * 100 + "]",
        "".join(f"[handlers.a{number}]\nextension = 'a'\ninterpreter = '/usr/bin/a.b'\n" for number in range(15_000)),
        "",
    ],
    ids=["key", "comment", "array", "handlers", "nothing"],
)
def test_what_has_dots(text: str) -> None:
    """Dots in texts, comments and numbers, and in many tables, are accepted."""
    tables(text)
