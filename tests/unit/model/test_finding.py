from binfmtd.model.finding import Finding, Level, Section, count, exit_status, worst_first


def made(level: Level, section: Section = Section.KERNEL) -> Finding:
    return Finding(section, "check", level, "text")


def test_the_worst_stands_on_top() -> None:
    """Failures come before warnings, and these before the rest; equals are in the order of the sections."""
    order = [made(level, section) for level in Level for section in Section]
    assert worst_first(reversed(order)) == order
    assert order[0].level is Level.FAILURE


def test_only_a_failure_makes_the_exit_status() -> None:
    """The exit status is 1 with a failure, and 0 with warnings or what could not be seen."""
    fine = [made(Level.OK), made(Level.WARNING), made(Level.UNSEEN)]
    assert exit_status(fine) == 0
    assert exit_status([*fine, made(Level.FAILURE)]) == 1
    assert count(fine, Level.WARNING) == 1
