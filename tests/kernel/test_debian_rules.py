"""Our entries replace those of Debian's qemu-user-binfmt, which have the same names, whenever systemd-binfmt runs.

Its rules are files of qemu-user; the package has links to them in /usr/lib/binfmt.d, for all that is not native.
"""

import errno
import os
import shutil
from pathlib import Path

import pytest
from support.binfmt_d import SYSTEMD_BINFMT, needs_systemd_binfmt, put_binfmt_d
from support.cli import Cli
from support.daemon import StartDaemon
from support.exec_loop import ExecLoop
from support.instance import Instance
from support.programs import foreign_program
from support.waiting import SLOWNESS, wait_until

from binfmtd.catalog.architectures import CATALOG
from binfmtd.formats.binfmt_d import parse_conf
from binfmtd.host.native import find_native
from binfmtd.model.match import Magic

RULES = Path("/usr/share/qemu/binfmt.d")
NAME = "qemu-aarch64"
SETTLE = f"settle = '{min(1000, round(20 * SLOWNESS))}ms'\n"  # the default, on an ordinary machine
RUNS = 12  # more repairs than one entry may have without contention, if each run were no flush


@pytest.fixture
def ruled(instance: Instance, tmp_path: Path) -> Instance:
    """Return an instance in which systemd-binfmt has registered Debian's rules."""
    needs_systemd_binfmt()
    if not RULES.is_dir():
        pytest.skip(f"{RULES} is not here: it is in Debian's package qemu-user, from Debian 13 on")
    directory = put_binfmt_d(instance, tmp_path / "tree")["/usr/lib/binfmt.d"]
    native = find_native(None)
    for rule in RULES.glob("*.conf"):
        if rule.stem.removeprefix("qemu-") not in native:
            shutil.copy(rule, directory)
    systemd_binfmt(instance)
    assert "interpreter /usr/libexec/qemu-binfmt/aarch64-binfmt-P\nflags: POF\n" in instance.read(NAME)
    return instance


def systemd_binfmt(instance: Instance) -> None:
    """Do what `systemctl restart systemd-binfmt` does, and so an upgrade of any package with rules."""
    for arguments in (["--unregister"], []):
        done = instance.run([str(SYSTEMD_BINFMT), *arguments])
        assert done.returncode == 0, done.stderr


def ours(instance: Instance) -> bool:
    """Return True if every entry is ours, and there is one for each rule."""
    try:
        texts = {name: instance.read(name) for name in instance.names()}
    except FileNotFoundError:  # a stand-in that is removed
        return False
    return len(texts) > 20 and all(f"interpreter /usr/bin/{name}\nflags: POF\n" in texts[name] for name in texts)


def test_ours_take_whatever_theirs_take() -> None:
    """Each of our matches compares no more bits than Debian's rule, and requires the same values."""
    if not RULES.is_dir():
        pytest.skip(f"{RULES} is not here")
    for rule in RULES.glob("*.conf"):
        (parsed,), problems = parse_conf(rule.read_bytes())
        theirs, match = parsed.registration.match, CATALOG[parsed.name.removeprefix("qemu-")].match
        assert isinstance(theirs, Magic)
        assert not problems
        assert match.care & ~theirs.care == 0, parsed.name
        assert (match.bits ^ theirs.bits) & match.care == 0, parsed.name


def test_ours_replace_them(ruled: Instance, start_daemon: StartDaemon, tmp_path: Path) -> None:
    """`plan` announces the replacement; afterwards all entries are ours, none is foreign, and each is in order."""
    names = set(ruled.names())
    planned = Cli(ruled, tmp_path)("plan")
    assert planned.status == 3
    assert {row[1] for row in planned.rows[1:] if row[0] == "replace"} == names
    daemon = start_daemon()
    assert ours(ruled)
    assert set(ruled.names()) == names
    status = daemon.wait_converged()
    assert status["foreign"] == []
    assert {row["state"] for row in status["handlers"]} == {"registered"}


def test_no_contention_with_systemd_binfmt(ruled: Instance, start_daemon: StartDaemon, tmp_path: Path) -> None:
    """However often systemd-binfmt runs, our entries come back without contention, and then no more is written.

    An execution can fail only in the moment between systemd's flush and our stand-in.
    """
    program = foreign_program(tmp_path / "program", CATALOG["aarch64"])
    daemon = start_daemon(SETTLE)
    with ExecLoop(ruled, program) as loop:
        for number in range(RUNS):
            systemd_binfmt(ruled)
            if number % 2:
                wait_until(lambda: ours(ruled), 30, "our entries")
        wait_until(lambda: ours(ruled), 30, "our entries")
        outcomes = loop.stop()
    daemon.wait_converged()
    assert {outcome for outcome, _ in outcomes} <= {42, os.strerror(errno.ENOEXEC)}
    assert outcomes[-1][0] == 42
    assert sum(count for outcome, count in outcomes if outcome == 42) > RUNS
    assert not daemon.logs("contention_started")
    before = ruled.inodes()
    daemon.reload()
    daemon.wait_for_log("config_reloaded")
    daemon.wait_converged()
    assert ruled.inodes() == before
