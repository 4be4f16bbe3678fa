"""Check what keeps the entries registered: the config, and the daemon."""

import os
import shlex
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from binfmtd.cli.context import doubts, without_directory
from binfmtd.cli.doctor.remedies import split
from binfmtd.cli.doctor.snapshot import Snapshot
from binfmtd.daemon.state_files.state_dir import LOCK_NAME
from binfmtd.files.environment import booted_with_systemd, in_container, shares_first_processes
from binfmtd.files.managers import unit_file
from binfmtd.model.desired import UnavailableReason
from binfmtd.model.finding import Finding, Level, Section
from binfmtd.model.pause import shown
from binfmtd.model.plan import INSTANCE
from binfmtd.report.sentence import counted
from binfmtd.report.status import unavailable_reason

_UNIT = "binfmtd.service"
# The history names the likely cause of each drift.
_END_CONTENTION = "stop that program (`binfmtd status --history` shows the likely cause), or leave the entry to it:"
_WORRIES = {"refused": Level.FAILURE, "failed": Level.FAILURE, "contended": Level.WARNING, "shadowed": Level.WARNING}


def of_config(snapshot: Snapshot) -> Iterator[Finding]:
    """Report whether the config is valid, its warnings, and the handlers that are refused or waiting on this host."""
    finding = partial(Finding, Section.CONFIG)
    check = _check(snapshot)
    if snapshot.config is None:
        unreadable = os.geteuid() != 0 and "Permission denied" in snapshot.config_error
        if unreadable:
            yield finding("valid", Level.UNSEEN, snapshot.config_error)
        elif _elsewhere(snapshot):
            text = (
                f"the daemon's config {snapshot.config_path} is not in this container: run `binfmtd doctor` where the "
                "daemon runs"
            )
            yield finding("valid", Level.UNSEEN, text)
        else:
            yield finding("valid", Level.FAILURE, snapshot.config_error, check)
        return
    sources = ", ".join(snapshot.config.sources) or "no config file, the defaults apply"
    handlers = counted(len(snapshot.desired.handlers), "handler")
    yield finding("valid", Level.OK, f"{sources}: {handlers} for this host")
    for text in snapshot.config.warnings:
        yield finding("warning", Level.WARNING, text, check)
    for key, text in without_directory(snapshot.config).items():
        yield finding("warning", Level.WARNING, f"{key}: {text}: the daemon writes no such file", check)
    for text in doubts(snapshot.desired):
        yield finding("warning", Level.WARNING, text, check)
    for unavailable in snapshot.desired.unavailable:
        if unavailable.cause is UnavailableReason.REFUSED:
            text, remedy = split(unavailable_reason(unavailable))
            yield finding("refused", Level.FAILURE, f"{unavailable.name}: {text}", remedy or check)
        elif unavailable.cause is UnavailableReason.WAITING:
            text, remedy = split(unavailable_reason(unavailable))
            yield finding(
                "waiting",
                Level.WARNING,
                f"{unavailable.name}: {text}",
                remedy or f"ls -l {shlex.quote(unavailable.interpreters[0])}",
            )


def _elsewhere(snapshot: Snapshot) -> bool:
    """Return True if the config's path comes from the status of a daemon in another container, and is not in ours."""
    named_by_daemon = snapshot.given.config is None and snapshot.pid is not None
    return named_by_daemon and in_container() and not os.path.lexists(snapshot.config_path or "")


def _check(snapshot: Snapshot) -> str:
    """Return the command that checks the config in use, also if its path comes from the daemon's status."""
    command = snapshot.again("check")
    if snapshot.given.config is None and snapshot.config_path is not None:
        return f"{command} --config {shlex.quote(snapshot.config_path)}"
    return command


def of_daemon(snapshot: Snapshot) -> Iterator[Finding]:
    """Report whether a daemon runs with this state directory, and the problems that its status contains."""
    finding = partial(Finding, Section.DAEMON)
    if snapshot.pid is None:
        if _closed(snapshot.state_dir):
            text = f"cannot see whether a daemon runs: no permission for {snapshot.state_dir}"
            yield finding("runs", Level.UNSEEN, text)
        elif snapshot.status is not None or snapshot.status_error:
            text = f"the daemon has ended (its files in {snapshot.state_dir} are out of date): nothing is repaired"
            yield finding("runs", Level.FAILURE, text, _start(snapshot))
        elif in_container() and not shares_first_processes():
            text = "no daemon of this state directory runs in this container; daemons outside of it are not visible"
            yield finding("runs", Level.UNSEEN, text)
        else:
            place = snapshot.state_dir
            text = f"no daemon runs with the state directory {place}: changes by other programs are not repaired"
            yield finding("runs", Level.WARNING, text, _start(snapshot))
        return
    who = f"pid {snapshot.pid}" if snapshot.pid else "pid unknown"
    if snapshot.status is None:
        if "Permission denied" in snapshot.status_error:
            yield finding("status", Level.UNSEEN, f"{who}; {snapshot.status_error}")
        else:
            text = snapshot.status_error or f"the daemon has not written its status to {snapshot.state_dir} yet"
            yield finding("status", Level.WARNING, f"{who}: {text}", snapshot.again("status"))
        return
    yield from _of_status(snapshot, who, snapshot.status)


def _of_status(snapshot: Snapshot, who: str, status: Mapping[str, Any]) -> Iterator[Finding]:
    finding = partial(Finding, Section.DAEMON)
    state, problem = status["state"], status["problem"]
    show = snapshot.again("status")
    done = f"{counted(status['repairs'], 'repair')} in {counted(status['passes'], 'pass')}"
    yield finding("runs", Level.OK, f"{who}, {state}, {done}")
    if problem:
        text, remedy = split(problem)
        yield finding("problem", Level.FAILURE, text, remedy)
    if error := status["config"]["error"]:
        text = f"the daemon keeps the old config in force, because the new one is invalid: {error}"
        remedy = _check(snapshot)
        if snapshot.config is not None:
            text = f"the daemon keeps an older config in force, because this one was invalid when it read it: {error}"
            remedy = snapshot.again("reload")
        yield finding("config", Level.FAILURE, text, remedy)
    for row in status["handlers"]:
        if (level := _WORRIES.get(row["state"])) is not None:
            text, remedy = split(row["reason"])
            if row["state"] == "contended":
                text, remedy = f"{text}; {_END_CONTENTION}", f"{snapshot.again('pause')} {shlex.quote(row['name'])}"
            yield finding(row["state"], level, f"{row['name']} is {row['state']}: {text}", remedy)
    if others := [name for name in status["contended"] if name not in {row["name"] for row in status["handlers"]}]:
        text = (
            f"another program keeps undoing the daemon's changes to {', '.join(others)}; the daemon repeats them at "
            "growing intervals"
        )
        names = [] if INSTANCE in others else map(shlex.quote, others)
        remedy = " ".join([snapshot.again("pause"), *names])
        yield finding("contended", Level.WARNING, f"{text}; {_END_CONTENTION}", remedy)
    drifting = [row["name"] for row in status["handlers"] if row["state"] == "stand_in"]
    if state == "drifting":
        text = f"the daemon is repairing entries{': ' + ', '.join(drifting) if drifting else ' that have drifted'}"
        yield finding("drifting", Level.WARNING, text, show)
    seal = status["seal"]
    if seal["state"] == "impossible":
        yield finding("seal", Level.FAILURE, seal["reason"], show)
    elif seal["state"] == "unsealed":
        yield finding("seal", Level.WARNING, f"binfmt_misc cannot be sealed: {seal['reason']}", show)
    if status["paused"]:
        names = ", ".join(shown(row["name"]) for row in status["paused"])
        yield finding("paused", Level.WARNING, f"`binfmtd pause` is in force for {names}", snapshot.again("resume"))


def _closed(state_dir: str) -> bool:
    """Return True if permissions hide the daemon's lock file: then a running daemon cannot be ruled out."""
    try:
        os.lstat(os.path.join(state_dir, LOCK_NAME))
    except OSError as error:
        return isinstance(error, PermissionError)
    return False


def _start(snapshot: Snapshot) -> str:
    usual = snapshot.given.state_dir is None and "BINFMTD_STATE_DIR" not in os.environ
    if usual and booted_with_systemd() and unit_file(_UNIT) is not None:
        return "systemctl enable --now binfmtd"
    return snapshot.again("run")
