"""``binfmtd doctor`` in a private instance, and a shell there that runs its remedies."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from binfmtd.catalog.architectures import CATALOG
from binfmtd.model.match import Match
from support.cli import Cli, Result
from support.daemon import Daemon
from support.programs import FOREIGN

StartDaemon = Callable[..., Daemon]
Finding = dict[str, Any]

EMULATOR = Path(f"/usr/bin/qemu-{FOREIGN}")
ONE = "architectures = []\n[handlers.one]\nmagic = '\\x00one'\ninterpreter = '{}'\nflags = 'F'\n"

_WORDS = ("correct [emulators] paths", "put the file there again")  # where no command is the remedy
NEEDS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="takes root: only that may enter from outside")


def failures(result: Result) -> list[tuple[str, str]]:
    """Return the section and the check of each failure in the document of `doctor --json`."""
    return [(found["section"], found["check"]) for found in result.json["findings"] if found["level"] == "failure"]


class Doctor(Cli):
    """``binfmtd doctor`` in a private instance, and a shell there that runs its remedies."""

    def look(self, *arguments: str, config: str | None = None) -> list[Finding]:
        """Return the findings, and check the counts and the exit status against them."""
        result = self("doctor", "--json", *arguments, config=config)
        assert result.stderr == ""
        document = result.json
        findings: list[Finding] = document["findings"]
        levels = [found["level"] for found in findings]
        assert document["failures"] == levels.count("failure")
        assert document["warnings"] == levels.count("warning")
        assert result.status == (1 if "failure" in levels else 0)
        for found in findings:
            assert found["level"] in ("note", "ok") or found["remedy"] or found["text"].endswith(_WORDS), findings
        return findings

    def unseen(self) -> list[Finding]:
        found: list[Finding] = self("doctor", "--json").json["not_seen"]
        return found

    def find(self, section: str, check: str, *arguments: str, config: str | None = None) -> Finding | None:
        """Return the one finding of this check, or None."""
        every = [
            found
            for found in self.look(*arguments, config=config)
            if (found["section"], found["check"]) == (section, check)
        ]
        assert len(every) <= 1, every
        return every[0] if every else None

    def found(self, section: str, check: str, *arguments: str, config: str | None = None) -> Finding:
        found = self.find(section, check, *arguments, config=config)
        assert found is not None, self("doctor").stdout
        return found

    def type(self, remedy: str) -> None:
        """Run a remedy in a shell in the instance, unchanged."""
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        environment = ["env", f"PATH={path}", f"BINFMTD_STATE_DIR={self.state_directory}"]
        done = self.instance.run([*environment, "sh", "-euc", remedy])
        assert done.returncode == 0, (remedy, done.stdout, done.stderr)


def match_of(architecture: str) -> Match:
    return CATALOG[architecture].match


def ends(doctor: Doctor, check: str, level: str, config: str = "architectures = []") -> Finding:
    """Assert that doctor finds a fault of this level, and that its remedy ends it; return the finding."""
    found = doctor.found("entries", check, config=config)
    assert found["level"] == level
    doctor.type(found["remedy"])
    assert doctor.find("entries", check, config=config) is None
    return found
