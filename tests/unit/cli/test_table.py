"""Text that fits the terminal."""

from hypothesis import given
from hypothesis import strategies as st

from binfmtd.cli.table import table, wrapped

WORDS = st.lists(st.text("abc-/", min_size=1, max_size=30), min_size=1, max_size=12)


@given(words=WORDS, width=st.integers(20, 60))
def test_words_are_whole(words: list[str], width: int) -> None:
    """A word is never broken: only a line with a single word may be too long."""
    lines = wrapped(" ".join(words), width, "first: ", "  ")
    assert " ".join(line[7:] if place == 0 else line[2:] for place, line in enumerate(lines)).split() == words
    assert all(len(line) <= width or len(line.removeprefix("first: ").split()) <= 1 for line in lines)


def test_what_has_no_end_is_one_line() -> None:
    assert wrapped("a b " * 100, None, "x: ") == ["x: " + "a b " * 100]


ROWS = [("NAME", "STATE", "WHY"), ("one", "fine", "because of a long story " * 4), ("two", "", "/a/path" * 9)]


def test_the_last_column_is_wrapped() -> None:
    """A last column that does not fit beside the other columns stands below its row; no name is cut."""
    heading, one, two = table(ROWS, 80)
    assert heading == ["NAME  STATE  WHY"]
    assert len(one) == 2
    assert one[1].startswith(" " * len("NAME  STATE  ") + "story")
    assert two == ["two          " + "/a/path" * 9]
    assert table(ROWS, 60)[2] == ["two", "  " + "/a/path" * 9]
    assert max(len(line) for row in table(ROWS, 80) for line in row) <= 80


def test_a_pipe_has_one_line_for_a_row() -> None:
    assert [len(row) for row in table(ROWS)] == [1, 1, 1]
