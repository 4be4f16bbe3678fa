"""The RPM package's scriptlets, on a booted Debian 13 with Debian's rpm: install, enable, upgrade and erase it.

Debian's rpm lacks Fedora's macros for systemd, so these are the spec's own scriptlets.  The presets are like Fedora's,
which disable each service that they do not name.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.booted import BINFMT_UNIT, CONFIG, DROP_INS, ENTRY, MOUNT_POINT, PACKAGES, UNIT, Booted
from support.cli import CHECKOUT, run
from support.required import require
from support.waiting import SLOWNESS

from binfmtd import __version__

pytestmark = pytest.mark.packages

NEEDED = ("rpmbuild", "rpmlint", "systemd-nspawn", "mmdebstrap", "dpkg-deb", "make")
FIRST_ANSWER = 51
UNITS = (UNIT, "binfmtd-metrics.socket", "binfmtd-probe.path")
PRESET = "/etc/systemd/system-preset/99-default-disable.preset"
RPM = ("rpm", "--dbpath=/var/lib/rpm", "--nodeps")
RULE = "/etc/binfmt.d/a-rule.conf"


@pytest.fixture(scope="module")
def newer(rpm: Path, sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the package once more, with a higher release, and return its path."""
    directory = tmp_path_factory.mktemp("newer")
    spec = (CHECKOUT / "packaging/rpm/binfmtd.spec").read_text()
    assert "Release:        1%" in spec
    (directory / "binfmtd.spec").write_text(spec.replace("Release:        1%", "Release:        2%"))
    defined = ["--define", f"_topdir {directory}", "--define", f"_sourcedir {sdist.parent}"]
    build = ["rpmbuild", "-bb", "--nodeps", *defined, f"{directory}/binfmtd.spec"]
    done = run(build, timeout=300 * SLOWNESS)
    assert done.status == 0, done.stderr[-3000:]
    return directory / f"RPMS/noarch/{rpm.name.replace('-1.noarch', '-2.noarch')}"


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Booted]:
    """Yield a machine with rpm and without binfmtd, with an emulator, and with Fedora's default preset."""
    require("test-packages", NEEDED, "systemd-nspawn boots a machine")
    with Booted(tmp_path_factory.mktemp("rpm"), packages=(*PACKAGES, "rpm"), installed=False) as booted:
        booted.install_emulator(FIRST_ANSWER)
        booted.write(PRESET, "disable *\n")
        yield booted


@pytest.fixture
def machine(bare: Booted, rpm: Path, newer: Path) -> Iterator[Booted]:
    """Yield that machine with both packages in /root; nothing of them is left at the end."""
    for package in (rpm, newer):
        shutil.copy(package, bare.root / "root" / package.name)
    # An erasure restarts systemd-binfmt, as the tests do: this resets its start limit, of five in ten seconds.
    bare.run("systemctl", "reset-failed", BINFMT_UNIT)
    yield bare
    bare.run(*RPM, "--erase", "binfmtd")
    shutil.rmtree(bare.root / "etc/binfmtd", ignore_errors=True)


def install(machine: Booted, package: Path) -> None:
    done = machine.run(*RPM, "--upgrade", f"/root/{package.name}")
    assert (done.status, done.stderr) == (0, "")


def test_nothing_is_enabled(machine: Booted, rpm: Path) -> None:
    """The installation enables and starts no unit, and systemd knows all of them."""
    install(machine, rpm)
    for unit in UNITS:
        assert machine.run("systemctl", "is-enabled", unit).stdout == "disabled\n", unit
        assert machine.run("systemctl", "is-active", unit).stdout == "inactive\n", unit
    assert ENTRY not in machine.entries()


def test_it_runs(machine: Booted, rpm: Path) -> None:
    """Once it is enabled the daemon registers its handler, and no file differs from the package."""
    install(machine, rpm)
    machine.systemctl("enable", "--now", UNIT)
    assert ENTRY in machine.entries()
    assert machine.answer() == FIRST_ANSWER
    assert f"binfmtd {__version__}" in machine.run("binfmtd", "--version").stdout
    assert machine.run("setpriv", "--reuid=1000", "--clear-groups", "binfmt", "--version").status == 0
    assert machine.run(*RPM, "--verify", "binfmtd").stdout == ""


def test_a_preset_enables_it(machine: Booted, rpm: Path) -> None:
    """A preset that names the service enables it at the installation."""
    preset = "/etc/systemd/system-preset/50-site.preset"
    machine.write(preset, f"enable {UNIT}\n")
    try:
        install(machine, rpm)
        assert machine.run("systemctl", "is-enabled", UNIT).stdout == "enabled\n"
        assert machine.run("systemctl", "is-enabled", "binfmtd-probe.path").stdout == "disabled\n"
    finally:
        machine.run("rm", preset)


def test_an_upgrade_restarts_a_running_daemon(machine: Booted, rpm: Path, newer: Path) -> None:
    """An upgrade restarts the daemon, and keeps the entry and the administrator's config."""
    install(machine, rpm)
    machine.write(CONFIG, 'architectures = ["riscv64"]  # mine\n')
    machine.systemctl("enable", "--now", UNIT)
    pid = machine.show("MainPID")
    inode = machine.run("stat", "--format=%i", f"{MOUNT_POINT}/{ENTRY}").stdout
    install(machine, newer)
    assert machine.show("MainPID") not in (pid, "0")
    assert machine.run("stat", "--format=%i", f"{MOUNT_POINT}/{ENTRY}").stdout == inode
    assert machine.run("cat", CONFIG).stdout == 'architectures = ["riscv64"]  # mine\n'


def test_an_upgrade_starts_no_stopped_daemon(machine: Booted, rpm: Path, newer: Path) -> None:
    """An upgrade leaves a service that does not run as it is."""
    install(machine, rpm)
    install(machine, newer)
    assert machine.run("systemctl", "is-active", UNIT).stdout == "inactive\n"
    assert machine.run("systemctl", "is-enabled", UNIT).stdout == "disabled\n"


def test_erased_it_leaves_the_rules_of_others(machine: Booted, rpm: Path) -> None:
    """`rpm --erase` stops the daemon and removes its entries, and systemd-binfmt has registered its own again."""
    machine.write(RULE, f":{ENTRY}:E::a-rule::/usr/bin/true:\n")
    try:
        assert machine.restart_systemd_binfmt().status == 0
        before = machine.entries()
        install(machine, rpm)
        machine.systemctl("enable", "--now", UNIT)
        assert "extension" not in machine.run("cat", f"{MOUNT_POINT}/{ENTRY}").stdout
        done = machine.run(*RPM, "--erase", "binfmtd")
        assert (done.status, done.stderr) == (0, "")
        assert machine.entries() == before
        assert "extension .a-rule" in machine.run("cat", f"{MOUNT_POINT}/{ENTRY}").stdout
        assert machine.run("systemctl", "list-unit-files", "binfmtd*").stdout.count("binfmtd") == 0
        assert machine.run("find", "/run/binfmtd", "/etc/systemd", "-name", "*binfmtd*").stdout == ""
    finally:
        machine.run("rm", "-f", RULE)
        assert machine.restart_systemd_binfmt().status == 0


def test_erased_it_leaves_no_seal(machine: Booted, rpm: Path) -> None:
    """After `rpm --erase` an instance that the daemon had sealed is open, and our entries are gone."""
    install(machine, rpm)
    machine.write(f"{DROP_INS}/sealed.conf", (CHECKOUT / "systemd/drop-ins/sealed.conf").read_text())
    machine.write("/etc/binfmtd/conf.d/sealed.toml", "sealed = true\n")
    try:
        machine.systemctl("daemon-reload")
        machine.systemctl("enable", "--now", UNIT)
        write = ("sh", "-c", f"echo 1 >{MOUNT_POINT}/status")
        assert "Read-only file system" in machine.run(*write).stderr
        assert machine.run(*RPM, "--erase", "binfmtd").status == 0
        assert machine.run(*write).status == 0
        assert ENTRY not in machine.entries()
    finally:
        machine.run("rm", "-rf", DROP_INS)
        machine.run("mount", "-o", "remount,rw", MOUNT_POINT)
