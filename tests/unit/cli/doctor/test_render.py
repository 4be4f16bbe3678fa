from binfmtd.cli.doctor.render import page
from binfmtd.model.finding import Finding, Level, Section

LONG = "word " * 30


def found(level: Level, text: str = "text", remedy: str = "", check: str = "check") -> Finding:
    return Finding(Section.MOUNT, check, level, text, remedy)


def test_no_line_is_wider_than_the_terminal() -> None:
    """Texts are wrapped to the terminal's width beneath their own beginning; only a remedy stays in one piece."""
    lines = page([found(Level.OK, LONG), found(Level.WARNING, "short", "x" * 100)], 60)
    assert all(len(line) <= 60 for line in lines if "$ " not in line)
    assert f"$ {'x' * 100}" in lines[1]
    columns = {line.index("word") for line in lines if "word" in line}
    assert columns == {lines[0].index("short")}


def test_colours_do_not_move_columns() -> None:
    """Without its colour codes a coloured page equals the plain one; a page without colours has no codes."""
    findings = [found(level) for level in Level]
    coloured = "\n".join(page(findings, coloured=True))
    plain = "\n".join(page(findings))
    assert "\x1b" not in plain
    for code in ("31", "32", "33", "0"):
        assert f"\x1b[{code}m" in coloured
        coloured = coloured.replace(f"\x1b[{code}m", "")
    assert coloured == plain


def test_the_sum() -> None:
    """The last line has the number of findings of each level, in words that agree with the numbers."""
    findings = [found(Level.FAILURE), found(Level.WARNING), found(Level.WARNING, check="other"), found(Level.UNSEEN)]
    assert page(findings)[-1].startswith("1 failure, 2 warnings, 0 ok, 1 not seen")
    assert page([found(Level.OK)])[-1] == "0 failures, 0 warnings, 1 ok"
    assert page([found(Level.NOTE), found(Level.NOTE)])[-1] == "0 failures, 0 warnings, 2 notes, 0 ok"


def test_what_others_wrote_cannot_steer_the_terminal() -> None:
    """Control characters, and those that reverse the writing, are escaped."""
    text = "\n".join(page([found(Level.WARNING, "a\x1b[31m\nb", "c\x07\u202e")], 80))
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "\u202e" not in text
    assert "a\\x1b[31m\\nb" in text


def test_many_of_a_kind() -> None:
    """The first three findings of one check are shown, and the number of the rest; warnings hide no failure."""
    lines = page([found(Level.WARNING, str(n)) for n in range(9)] + [found(Level.FAILURE, "bad")])
    assert sum("warning " in line for line in lines) == 3
    assert any(line.strip() == "... and 6 more of these: --json lists them all" for line in lines)
    assert "bad" in lines[0]
