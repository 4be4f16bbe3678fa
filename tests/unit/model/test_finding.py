from binfmtd.model.finding import Finding, Level, Section, count, exit_status, worst_first


def made(level: Level, section: Section = Section.KERNEL) -> Finding:
    return Finding(section, "check", level, "text")


def test_the_worst_stands_on_top() -> None:
    """Failures before warnings before the rest, and among equals as the sections are."""
    order = [made(level, section) for level in Level for section in Section]
    assert worst_first(reversed(order)) == order
    assert order[0].level is Level.FAILURE


def test_only_a_failure_makes_the_exit_status() -> None:
    """Warnings, and what was not seen, leave it at 0."""
    fine = [made(Level.OK), made(Level.WARNING), made(Level.UNSEEN)]
    assert exit_status(fine) == 0
    assert exit_status([*fine, made(Level.FAILURE)]) == 1
    assert count(fine, Level.WARNING) == 1
