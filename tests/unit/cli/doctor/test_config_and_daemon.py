"""Findings made from a daemon's status, for states that take a while to come about."""

import argparse
from typing import Any

import pytest

from binfmtd.cli.doctor import config_and_daemon as keeper
from binfmtd.cli.doctor.config_and_daemon import of_config, of_daemon
from binfmtd.cli.doctor.snapshot import Snapshot
from binfmtd.daemon.interpreters.host_facts import HostFacts
from binfmtd.model.finding import Level
from binfmtd.model.plan import INSTANCE

PAUSE, RESUME = "binfmtd pause --state-dir /state", "binfmtd resume --state-dir /state"


def snapshot(status: dict[str, Any] | None, pid: int | None = 7, error: str = "") -> Snapshot:
    given = argparse.Namespace(config=None, mount=None, state_dir="/state")
    facts = HostFacts(None, writes=False)
    return Snapshot(given, "/mount", None, "", None, "/state", pid, status, error, None, None, "", facts)


def status(state: str = "converged", **others: object) -> dict[str, Any]:
    plain: dict[str, Any] = {
        "state": state,
        "problem": None,
        "config": {"error": None},
        "handlers": [],
        "contended": [],
        "paused": [],
        "seal": {"state": "off", "reason": ""},
        "repairs": 0,
        "passes": 1,
    }
    return plain | others


def row(state: str, reason: str = "why") -> list[dict[str, str]]:
    return [{"name": "one", "state": state, "reason": reason}]


@pytest.mark.parametrize(
    ("said", "check", "level", "remedy"),
    [
        (status("contended", handlers=row("contended"), contended=["one"]), "contended", Level.WARNING, PAUSE + " one"),
        (status("contended", contended=[INSTANCE]), "contended", Level.WARNING, PAUSE),
        (status("degraded", contended=["a b", "one"]), "contended", Level.WARNING, PAUSE + " 'a b' one"),
        (status("degraded", handlers=row("failed")), "failed", Level.FAILURE, ""),
        (status("degraded", handlers=row("refused")), "refused", Level.FAILURE, ""),
        (status("degraded", problem="it cannot: run `this`"), "problem", Level.FAILURE, "this"),
        (status("degraded", problem="it is not there: do something"), "problem", Level.FAILURE, ""),
        (status("drifting", handlers=row("stand_in")), "drifting", Level.WARNING, "binfmtd status --state-dir /state"),
        (status(handlers=row("shadowed")), "shadowed", Level.WARNING, ""),
        (
            status("paused", paused=[{"name": "one", "until": None}]),
            "paused",
            Level.WARNING,
            RESUME,
        ),
    ],
)
def test_states(said: dict[str, Any], check: str, level: Level, remedy: str) -> None:
    """Each state is one finding beside the one that the daemon runs; its remedy changes something, or is empty."""
    runs, found = of_daemon(snapshot(said))
    assert (runs.check, runs.level) == ("runs", Level.OK)
    assert (found.check, found.level) == (check, level)
    assert found.remedy == remedy


def test_states_that_need_nothing() -> None:
    """Handlers that a foreign entry serves, that wait for an emulator or that are disabled make no finding."""
    for state in ("registered", "served_elsewhere", "waiting", "disabled"):
        assert [each.check for each in of_daemon(snapshot(status(handlers=row(state))))] == ["runs"]


def test_the_remedy_is_that_of_the_daemons_message() -> None:
    """The text and the remedy of the finding are those of the daemon's own message."""
    _, found = of_daemon(snapshot(status("degraded", problem="/y is mounted read-only: run `mount -o remount,rw /y`")))
    assert (found.text, found.remedy) == ("/y is mounted read-only", "mount -o remount,rw /y")


def test_without_a_status() -> None:
    """A missing status is a warning, one that we may not read is unseen, and one of an ended daemon is a failure."""
    (found,) = of_daemon(snapshot(None, error="/state/status.json: Permission denied: run this as root"))
    assert found.level is Level.UNSEEN
    (found,) = of_daemon(snapshot(None))
    assert found.level is Level.WARNING
    (found,) = of_daemon(snapshot(None, pid=None, error="/state/status.json is damaged"))
    assert found.level is Level.FAILURE


@pytest.mark.parametrize(("contained", "level"), [(True, Level.UNSEEN), (False, Level.FAILURE)])
def test_the_config_of_a_daemon_elsewhere(monkeypatch: pytest.MonkeyPatch, contained: bool, level: Level) -> None:
    """A config that is missing here, and that only a daemon's status names, is unseen in a container.

    The daemon may run in another container that shares the state directory.  On a host the missing config is a
    failure.
    """
    monkeypatch.setattr(keeper, "in_container", lambda: contained)
    missing = snapshot(status())._replace(config_path="/nowhere/binfmtd.toml", config_error="cannot be read")
    (only,) = of_config(Snapshot(*missing))
    assert only.level is level


def test_the_path_of_a_config_is_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command that checks a daemon's invalid config can be copied, also if the path contains blanks."""
    monkeypatch.setattr(keeper, "in_container", lambda: False)
    invalid = snapshot(status())._replace(config_path="/my etc/binfmtd.toml", config_error="is invalid")
    (only,) = of_config(Snapshot(*invalid))
    assert only.remedy == "binfmtd check --state-dir /state --config '/my etc/binfmtd.toml'"
