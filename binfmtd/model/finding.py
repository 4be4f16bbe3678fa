"""The findings of `doctor`: the result of each check, or that the check could not see its subject."""

from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import NamedTuple


class Section(StrEnum):
    """The subject of a finding.  Each section builds on those before it."""

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
    """The severity of a finding, the worst first.  UNSEEN is neither good nor bad: the check could not be made."""

    FAILURE = "failure"  # programs do not run, or something that is asked for is not done
    WARNING = "warning"  # it works, but not always or everywhere
    NOTE = "note"  # a fault or limit of an emulator that few programs meet, or that no command removes
    OK = "ok"
    UNSEEN = "not seen"


class Finding(NamedTuple):
    """One line of the report.

    ``check`` names the check, for programs; findings of one check refer to different things.  ``remedy`` is one command
    or one line of the config.  Only failures and warnings need one.
    """

    section: Section
    check: str
    level: Level
    text: str
    remedy: str = ""


def worst_first(findings: Iterable[Finding]) -> list[Finding]:
    """Sort findings by level, the worst first, and within a level by section."""
    levels, sections = list(Level), list(Section)
    return sorted(findings, key=lambda finding: (levels.index(finding.level), sections.index(finding.section)))


def count(findings: Sequence[Finding], level: Level) -> int:
    """Return the number of findings of this level."""
    return sum(finding.level is level for finding in findings)


def exit_status(findings: Sequence[Finding]) -> int:
    """Return 1 if any finding is a failure, else 0."""
    return int(count(findings, Level.FAILURE) > 0)
