"""What a look at the whole found: one finding a question, and what it could not see."""

from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import NamedTuple


class Section(StrEnum):
    """What a finding is about, in the order in which they build on each other."""

    KERNEL = "kernel"
    MODULE = "module"
    MOUNT = "mount"
    USER_NAMESPACE = "user namespace"
    PRIVILEGES = "privileges"
    MANAGERS = "other managers"
    ENTRIES = "entries"
    EMULATORS = "emulators"
    CONFIG = "config"
    DAEMON = "daemon"


class Level(StrEnum):
    """How bad it is, the worst first; what could not be seen is neither good nor bad."""

    FAILURE = "failure"  # programs do not run, or what was asked for is not done
    WARNING = "warning"  # it works, and will not always or everywhere
    OK = "ok"
    UNSEEN = "not seen"


class Finding(NamedTuple):
    """One line of the page.

    ``check`` names the question, for programs; findings of the same check differ in whom they are about.  ``remedy`` is
    one command or one line of the config, and whatever is no failure or warning needs none.
    """

    section: Section
    check: str
    level: Level
    text: str
    remedy: str = ""


def worst_first(findings: Iterable[Finding]) -> list[Finding]:
    """In the order in which one reads them: what is bad on top, else as the sections are."""
    levels, sections = list(Level), list(Section)
    return sorted(findings, key=lambda found: (levels.index(found.level), sections.index(found.section)))


def count(findings: Sequence[Finding], level: Level) -> int:
    """How many are of this level."""
    return sum(found.level is level for found in findings)


def exit_status(findings: Sequence[Finding]) -> int:
    """1 if anything failed."""
    return int(count(findings, Level.FAILURE) > 0)
