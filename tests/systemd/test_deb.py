"""The Debian package in a Debian 13 without binfmtd: install, use, upgrade, remove and purge it with dpkg."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.booted import BINFMT_UNIT, CONFIG, DROP_INS, ENTRY, MOUNT_POINT, UNIT, Booted
from support.cli import CHECKOUT, run
from support.make_once import make_once
from support.storm import Storm
from support.waiting import wait_until

from binfmtd import __version__

pytestmark = pytest.mark.systemd

OTHER_UNITS = ("binfmtd-metrics.socket", "binfmtd-probe.path", "binfmtd-probe.service")
PREVIOUS = "0.0.1"
FIRST_ANSWER = 51
DIRECTORIES = "/etc /usr /var /run/binfmtd /root /home /opt /srv"
# dpkg and systemd keep their own state there, and every process may log.
THEIR_OWN = ("/var/lib/dpkg/", "/var/log/", "/var/cache/", "/var/lib/systemd/")


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the package, and return its path; `make deb` fails if lintian finds anything."""
    return make_once("deb", f"build/deb/binfmtd_{__version__}_all.deb", tmp_path_factory)


@pytest.fixture(scope="module")
def previous(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the same package with a lower version."""
    directory = tmp_path_factory.mktemp("previous")
    content, made = directory / "content", directory / f"binfmtd_{PREVIOUS}_all.deb"
    assert run(["dpkg-deb", "--raw-extract", str(package), str(content)]).status == 0
    control = content / "DEBIAN/control"
    control.write_text(control.read_text().replace(f"\nVersion: {__version__}\n", f"\nVersion: {PREVIOUS}\n"))
    assert run(["dpkg-deb", "--root-owner-group", "--build", str(content), str(made)]).status == 0
    return made


@pytest.fixture(scope="module")
def bare(booting: type[Booted], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Booted]:
    """Yield a machine without binfmtd, with an emulator and a rule for systemd-binfmt."""
    with booting(tmp_path_factory.mktemp("bare"), installed=False) as booted:
        booted.install_emulator(FIRST_ANSWER)
        yield booted


@pytest.fixture
def machine(bare: Booted, package: Path, previous: Path) -> Iterator[Booted]:
    """Yield that machine with both archives in /root; the package is purged at the end."""
    for archive in (package, previous):
        shutil.copy(archive, bare.root / "root")
    # A removal restarts systemd-binfmt, as the tests do: this resets its start limit, of five in ten seconds.
    bare.run("systemctl", "reset-failed", BINFMT_UNIT)
    yield bare
    bare.run("dpkg", "--purge", "binfmtd")


def install(machine: Booted, version: str = __version__) -> None:
    done = machine.run("dpkg", "--install", f"/root/binfmtd_{version}_all.deb")
    assert done.status == 0, done.stderr
    assert [line for line in done.stderr.splitlines() if not line.startswith("Created symlink ")] == []


def files(machine: Booted) -> set[str]:
    """Return the paths of the machine's files that a package could have made."""
    listed = machine.run("sh", "-c", f"find {DIRECTORIES} 2>/dev/null").stdout.splitlines()
    return {path for path in listed if not path.startswith(THEIR_OWN)}


def test_it_is_installed_and_runs(machine: Booted) -> None:
    """After `dpkg --install` the daemon runs and is enabled, and has registered its handler; the other units wait."""
    install(machine)
    assert machine.systemctl("is-active", UNIT).stdout == "active\n"
    assert machine.systemctl("is-enabled", UNIT).stdout == "enabled\n"
    for unit in OTHER_UNITS:
        assert machine.run("systemctl", "is-enabled", unit).stdout in ("disabled\n", "static\n"), unit
        assert machine.run("systemctl", "is-active", unit).stdout == "inactive\n", unit
    assert ENTRY in machine.entries()
    assert machine.answer() == FIRST_ANSWER
    assert machine.run("dpkg", "--verify", "binfmtd").stdout == ""
    for command in ("binfmtd", "binfmt"):
        assert (machine.root / f"usr/bin/{command}").read_text().splitlines()[0] == "#!/usr/bin/python3 -I"
        assert machine.run("setpriv", "--reuid=1000", "--clear-groups", command, "--version").status == 0
    assert f"binfmtd {__version__}" in machine.run("binfmtd", "--version").stdout
    found = machine.run("python3", "-c", "from importlib.metadata import version; print(version('binfmtd'))")
    assert found.stdout == f"{__version__}\n", found.stderr


def test_an_upgrade_fails_no_execution(machine: Booted) -> None:
    """An upgrade restarts the daemon, keeps the administrator's config, and no execution fails meanwhile."""
    install(machine, PREVIOUS)
    machine.write(CONFIG, 'architectures = ["riscv64"]  # mine\n')
    machine.systemctl("reload", UNIT)
    pid = machine.show("MainPID")
    with Storm(machine, FIRST_ANSWER) as storm:
        install(machine)
        assert storm.end() > 10
    assert machine.show("MainPID") not in (pid, "0")
    assert machine.run("cat", CONFIG).stdout == 'architectures = ["riscv64"]  # mine\n'
    assert ENTRY in machine.entries()


def test_removed_it_leaves_the_rules_of_others(machine: Booted) -> None:
    """After `dpkg --remove` our entries are gone, systemd-binfmt has registered its own, and the config stays."""
    rule = f":{ENTRY}:E::a-rule::/usr/bin/true:\n"
    machine.write("/etc/binfmt.d/a-rule.conf", rule)
    try:
        assert machine.restart_systemd_binfmt().status == 0
        theirs = machine.entries()
        assert ENTRY in theirs
        install(machine)
        assert "extension" not in machine.run("cat", f"{MOUNT_POINT}/{ENTRY}").stdout
        machine.systemctl("enable", "--now", "binfmtd-probe.path")
        done = machine.run("dpkg", "--remove", "binfmtd")
        assert (done.status, done.stderr) == (0, "")
        assert machine.entries() == theirs
        assert "extension .a-rule" in machine.run("cat", f"{MOUNT_POINT}/{ENTRY}").stdout
        assert machine.run("systemctl", "is-active", UNIT, "binfmtd-probe.path").stdout.split() == ["inactive"] * 2
        assert (machine.root / CONFIG.lstrip("/")).exists()
    finally:
        machine.run("rm", "-f", "/etc/binfmt.d/a-rule.conf")
        assert machine.restart_systemd_binfmt().status == 0


def test_removed_it_leaves_no_seal(machine: Booted) -> None:
    """After `dpkg --remove` an instance that the daemon had sealed is open, and our entries are gone."""
    install(machine)
    machine.write(f"{DROP_INS}/sealed.conf", (CHECKOUT / "systemd/drop-ins/sealed.conf").read_text())
    machine.write("/etc/binfmtd/conf.d/sealed.toml", "sealed = true\n")
    try:
        machine.systemctl("daemon-reload")
        machine.systemctl("restart", UNIT)
        write = ("sh", "-c", f"echo 1 >{MOUNT_POINT}/status")
        assert "Read-only file system" in machine.run(*write).stderr
        done = machine.run("dpkg", "--remove", "binfmtd")
        assert (done.status, done.stderr) == (0, "")
        assert machine.run(*write).status == 0
        assert ENTRY not in machine.entries()
    finally:
        machine.run("rm", "-rf", DROP_INS)
        machine.run("mount", "-o", "remount,rw", MOUNT_POINT)


def test_purged_it_leaves_nothing(machine: Booted) -> None:
    """After `dpkg --purge` no file and no entry is left that was not there before."""
    machine.run("dpkg", "--purge", "binfmtd")
    before = files(machine)
    entries = machine.entries()
    install(machine)
    machine.write("/etc/binfmtd/conf.d/mine.toml", "settle = '60ms'\n")
    machine.systemctl("reload", UNIT)
    store = ("mkdir", "-p", "/var/lib/binfmtd/emulators/mine")
    assert machine.run(*store).status == 0
    for command in (("status",), ("doctor",), ("emulators", "list")):
        machine.run("binfmtd", *command)
    done = machine.run("dpkg", "--purge", "binfmtd")
    assert (done.status, done.stderr) == (0, "")
    # systemd removes the service's directories for temporary files (PrivateTmp) some time after its end.
    of_systemd = "/systemd-private-"
    wait_until(lambda: not any(of_systemd in path for path in files(machine) - before), 30, "no such directory")
    assert files(machine) - before == set()
    assert machine.entries() == entries
    assert machine.run("systemctl", "list-unit-files", "binfmtd*").stdout.count("binfmtd") == 0
