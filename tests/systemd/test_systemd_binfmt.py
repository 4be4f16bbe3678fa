"""systemd-binfmt.service on a read-only instance, with and without our drop-in for it.

mount(8) makes the superblock read-only here: no daemon runs.
"""

from collections.abc import Iterator
from typing import NamedTuple

import pytest
from support.booted import MOUNT_POINT, Booted
from support.cli import CHECKOUT
from support.waiting import wait_until

pytestmark = pytest.mark.systemd

UNIT = "systemd-binfmt.service"
DROP_IN = f"systemd/drop-ins/{UNIT}.d/binfmtd-sealed.conf"
INSTALLED = f"/etc/systemd/system/{UNIT}.d/binfmtd-sealed.conf"
RULE = "/etc/binfmt.d/a-rule.conf"
ENTRY = "a-rule"
# Debian 13 with systemd 257, and Debian 12 with 252, where binfmtd itself is not installed.
SUITES = ("trixie", "bookworm")


class Outcome(NamedTuple):
    """The exit status of a systemctl command, and the unit's state and result after it."""

    status: int
    state: str
    result: str


@pytest.fixture(scope="module", params=SUITES)
def suite(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def system(
    booting: type[Booted], suite: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Booted]:
    """Yield a machine of that suite, without our drop-in."""
    if suite == SUITES[0]:
        machine = request.getfixturevalue("machine")
        machine.run("systemctl", "stop", "binfmtd.service")
        yield machine
    else:
        with booting(tmp_path_factory.mktemp(suite), suite) as booted:
            yield booted


@pytest.fixture
def sealed(system: Booted) -> Iterator[Booted]:
    """Yield the machine with the unit active, as after a boot, and then the superblock read-only."""
    system.write(RULE, f":{ENTRY}:E::x-{ENTRY}::/usr/bin/true:\n")
    system.run("systemctl", "reset-failed", UNIT)  # also resets the start limit, which other tests use up
    system.run("systemctl", "restart", UNIT)
    assert ENTRY in system.entries()
    assert system.run("mount", "-o", "remount,ro", MOUNT_POINT).status == 0
    try:
        yield system
    finally:
        system.run("mount", "-o", "remount,rw", MOUNT_POINT)
        system.run("rm", "-rf", INSTALLED, RULE)
        system.run("systemctl", "daemon-reload")
        system.run("systemctl", "reset-failed", UNIT)
        system.run("systemctl", "restart", UNIT)


def done(system: Booted, verb: str) -> Outcome:
    system.run("systemctl", "reset-failed", UNIT)
    status = system.run("systemctl", verb, UNIT).status
    state, result = (
        system.run("systemctl", "show", "--value", f"--property={name}", UNIT).stdout.strip()
        for name in ("ActiveState", "Result")
    )
    return Outcome(status, state, result)


def test_without_the_drop_in(sealed: Booted, suite: str) -> None:
    """Without it systemd-binfmt 257 skips by itself; 252 fails, and `systemctl restart` with it.  No entry goes."""
    outcome = done(sealed, "restart")
    assert outcome == (Outcome(0, "active", "success") if suite == "trixie" else Outcome(1, "failed", "exit-code"))
    assert ENTRY in sealed.entries()


def test_with_the_drop_in(sealed: Booted) -> None:
    """With the drop-in systemd skips both versions, for each verb in use, and reports no failure."""
    sealed.write(INSTALLED, (CHECKOUT / DROP_IN).read_text())
    verified = sealed.run("systemd-analyze", "verify", "--man=no", UNIT)
    assert (verified.status, verified.stdout, verified.stderr) == (0, "", "")
    sealed.run("systemctl", "daemon-reload")
    skipped = Outcome(0, "inactive", "success")
    assert [done(sealed, verb) for verb in ("restart", "start", "try-restart", "stop")] == [skipped] * 4
    journal = ("journalctl", f"--unit={UNIT}", "--output=cat")
    wait_until(lambda: "ConditionPathIsReadWrite" in sealed.run(*journal).stdout, 30, "the log line of the condition")
    assert ENTRY in sealed.entries()


def test_with_the_drop_in_and_a_writable_instance(sealed: Booted) -> None:
    """On a writable instance systemd-binfmt registers and unregisters, as without the drop-in."""
    sealed.write(INSTALLED, (CHECKOUT / DROP_IN).read_text())
    sealed.run("systemctl", "daemon-reload")
    assert sealed.run("mount", "-o", "remount,rw", MOUNT_POINT).status == 0
    assert done(sealed, "stop") == Outcome(0, "inactive", "success")
    assert ENTRY not in sealed.entries()
    assert done(sealed, "restart") == Outcome(0, "active", "success")
    assert ENTRY in sealed.entries()
