"""config/apt beside a sealed instance: apt and dpkg with packages whose scripts register formats by update-binfmts."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from support import programs
from support.booted import CONFIG, DROP_INS, ENTRY, MOUNT_POINT, UNIT, Booted
from support.cli import CHECKOUT, Result, run
from support.waiting import wait_until

pytestmark = [pytest.mark.systemd, pytest.mark.usefixtures("debian")]

HOOK = "/usr/local/sbin/binfmtd-apt"
HOOKED = "/etc/apt/apt.conf.d/90binfmtd-sealed"
DPKG_HOOKED = "/etc/dpkg/dpkg.cfg.d/binfmtd-sealed"
NAME = "a-format"
# As in debhelper's scripts and those of Debian's packages: with `set -e`, so a failure fails the package.
REGISTERS = f"update-binfmts --package a-package --install {NAME} /usr/bin/true --extension {NAME}\n"
KILLS_APT = "for each in $(pidof apt-get); do kill -KILL $each; done\n"
READ_ONLY = "Read-only file system"


@pytest.fixture(scope="module")
def debian(machine: Booted, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Install the real update-binfmts on the machine."""
    directory = tmp_path_factory.mktemp("binfmt-support")
    if run(["apt-get", "download", "binfmt-support", "libpipeline1"], cwd=directory, timeout=300).status != 0:
        pytest.skip("no binfmt-support can be downloaded: run apt-get update")
    for archive in directory.glob("*.deb"):
        shutil.copy(archive, machine.root / "root")
    done = machine.run("sh", "-c", "dpkg --install /root/libpipeline1_*.deb /root/binfmt-support_*.deb")
    assert done.status == 0, done.stderr


@pytest.fixture
def sealed(service: Booted) -> Iterator[Booted]:
    """Yield the service with a sealed instance and the hook, without the package; unseal at the end."""
    service.write(f"{DROP_INS}/sealed.conf", (CHECKOUT / "systemd/drop-ins/sealed.conf").read_text())
    service.write(CONFIG, 'architectures = ["riscv64"]\nsealed = true\n')
    service.systemctl("daemon-reload")
    service.systemctl("restart", UNIT)
    for source, target in (("90binfmtd-sealed", HOOKED), ("binfmtd-apt", HOOK)):
        service.write(target, (CHECKOUT / "config/apt" / source).read_text())
    service.run("chmod", "755", HOOK)
    yield service
    service.run("rm", "-f", HOOK, HOOKED, DPKG_HOOKED, "/run/binfmtd-apt.json", "/run/binfmtd/paused.json")
    service.systemctl("stop", UNIT)
    service.write(CONFIG, 'architectures = ["riscv64"]\n')
    assert service.run("mount", "-o", "remount,rw", MOUNT_POINT).status == 0
    service.run("dpkg", "--purge", "--force-all", "a-package", "another-package")
    service.run("update-binfmts", "--package", "a-package", "--remove", NAME, "/usr/bin/true")


def install(machine: Booted, script: str, *more: str, environment: str = "A=b") -> Result:
    """Install packages whose postinst runs these scripts, by one call of apt."""
    packages = [_build(machine, name, each) for name, each in zip(_NAMES, (script, *more), strict=False)]
    command = ("apt-get", "install", "--yes", "--quiet", "--reinstall", "--allow-downgrades", *packages)
    return machine.run("env", "DEBIAN_FRONTEND=noninteractive", environment, *command)


_NAMES = ("a-package", "another-package")


def _build(machine: Booted, name: str, script: str) -> str:
    content = machine.root / "root" / name
    shutil.rmtree(content, ignore_errors=True)
    (content / "DEBIAN").mkdir(parents=True)
    (content / "DEBIAN/control").write_text(
        f"Package: {name}\nVersion: 1\nArchitecture: all\nMaintainer: nobody <n@example.org>\nDescription: a test\n"
    )
    programs.install(content / "DEBIAN/postinst", f"#!/bin/sh\nset -e\n{script}".encode())
    archive = machine.root / "root" / f"{name}.deb"
    build = ("dpkg-deb", "--root-owner-group", "--build", str(content), str(archive))
    subprocess.run(build, check=True, capture_output=True)
    return f"/root/{name}.deb"


def wait_for_dpkg(machine: Booted) -> None:
    """Wait for the end of dpkg, which goes on when apt is killed: the next one would not get the lock."""
    wait_until(lambda: machine.run("pidof", "dpkg").status != 0, 30, "the end of dpkg")


def refused(machine: Booted) -> bool:
    """Return True if the instance is sealed: the kernel refuses a write that would change nothing."""
    return READ_ONLY in machine.run("sh", "-c", f"echo 1 >{MOUNT_POINT}/{ENTRY}").stderr


def paused(machine: Booted) -> list[str]:
    status: dict[str, Any] = json.loads(machine.run("binfmtd", "status", "--json").stdout)
    return [row["name"] for row in status["paused"]]


def test_without_the_hook(sealed: Booted) -> None:
    """Without the hook the package's script fails, and apt with it."""
    (sealed.root / HOOKED.lstrip("/")).unlink()
    done = install(sealed, REGISTERS)
    assert done.status == 100
    assert NAME not in sealed.entries()


def test_repairs_go_on_while_dpkg_runs(sealed: Booted) -> None:
    """A package's script removes an entry: the daemon registers it again while the script is still running."""
    entry = f"{MOUNT_POINT}/{ENTRY}"
    done = install(sealed, f"echo -1 >{entry}\ntimeout 30 sh -c 'until [ -e {entry} ]; do sleep 0.01; done'\n")
    assert done.status == 0, done.stdout + done.stderr
    assert refused(sealed)


def test_without_the_command(sealed: Booted) -> None:
    """If apt's PATH does not name binfmtd while a daemon runs, the hook says so before dpkg runs; apt goes on."""
    sealed.run("sh", "-c", "mkdir -p /root/path && ln -sf /usr/bin/flock /root/path/")

    def messages(argument: str) -> int:
        done = sealed.run("env", "PATH=/root/path", "/bin/sh", HOOK, argument)
        assert done.status == 0
        return len(done.stderr.splitlines())

    assert (messages("pause"), messages("resume")) == (1, 0)
    sealed.systemctl("stop", UNIT)
    assert messages("pause") == 0


def test_with_the_hook(sealed: Booted) -> None:
    """With the hook the package registers its format; then the instance is sealed again, and nothing is paused."""
    done = install(sealed, REGISTERS)
    assert done.status == 0, done.stdout + done.stderr
    assert NAME in sealed.entries()
    assert refused(sealed)
    assert paused(sealed) == []


def test_it_prints_nothing(sealed: Booted) -> None:
    """The hook adds nothing to apt's output."""
    done = install(sealed, "true\n")
    assert not re.search("pause|resume|binfmtd", done.stdout + done.stderr)


def test_a_failing_package(sealed: Booted) -> None:
    """The instance is sealed again after a failed run."""
    assert install(sealed, "exit 1\n").status == 100
    assert refused(sealed)
    assert paused(sealed) == []


@pytest.mark.parametrize("names", [(), (ENTRY,)], ids=["everything", "a-name"])
def test_what_an_administrator_had_paused_stays_so(sealed: Booted, names: tuple[str, ...]) -> None:
    """An earlier pause opens the seal by itself, and goes on after the run."""
    assert sealed.run("binfmtd", "pause", *names).status == 0
    before = paused(sealed)
    done = install(sealed, REGISTERS)
    assert done.status == 0, done.stdout + done.stderr
    assert paused(sealed) == before
    assert not refused(sealed)


def test_what_an_administrator_pauses_meanwhile_stays_so(sealed: Booted) -> None:
    """If an administrator pauses a name during the run, the run's own pause goes on until its time limit."""
    assert install(sealed, f"binfmtd pause {ENTRY}\n", environment="BINFMTD_APT_PAUSE=6s").status == 0
    assert ENTRY in paused(sealed)
    wait_until(lambda: paused(sealed) == [ENTRY], 30, "the end of the run's own pause")


def test_what_an_administrator_resumes_meanwhile_is_not_paused_again(sealed: Booted) -> None:
    """If an administrator resumes during the run, apt succeeds, and nothing is paused afterwards."""
    assert install(sealed, "binfmtd resume\n").status == 0
    assert paused(sealed) == []
    assert refused(sealed)


def test_a_run_that_is_killed(sealed: Booted) -> None:
    """A killed apt does not run its Post-Invoke: the pause ends at its time limit, and the daemon seals again."""
    install(sealed, KILLS_APT, environment="BINFMTD_APT_PAUSE=20s")  # of which dpkg takes a part
    assert paused(sealed) == ["/seal"]
    wait_until(lambda: refused(sealed), 30, "the seal")
    wait_for_dpkg(sealed)


def test_the_run_after_one_that_was_killed(sealed: Booted) -> None:
    """The run after a killed one begins its pause anew, and ends it."""
    install(sealed, KILLS_APT, environment="BINFMTD_APT_PAUSE=1h")
    wait_for_dpkg(sealed)
    sealed.run("dpkg", "--configure", "--pending")
    assert paused(sealed) == ["/seal"]
    done = install(sealed, REGISTERS)
    assert done.status == 0, done.stdout + done.stderr
    assert paused(sealed) == []
    assert refused(sealed)


def test_several_calls_of_dpkg(sealed: Booted) -> None:
    """apt calls dpkg to unpack, and then to configure: the seal is open during each call."""
    log = sealed.root / "var/log/dpkg.log"
    before = log.read_text().count(" startup ")
    done = install(sealed, REGISTERS, f"echo 1 >{MOUNT_POINT}/{ENTRY}\n")
    assert done.status == 0, done.stdout + done.stderr
    assert log.read_text().count(" startup ") - before >= 2
    assert refused(sealed)
    assert paused(sealed) == []


@pytest.mark.parametrize("script", [REGISTERS, "exit 1\n"], ids=["succeeds", "fails"])
def test_dpkg_without_apt(sealed: Booted, script: str) -> None:
    """A hook in dpkg's configuration opens the seal for dpkg without apt, too."""
    assert sealed.run("dpkg", "--install", _build(sealed, _NAMES[0], REGISTERS)).status == 1, "without the hook"
    sealed.write(DPKG_HOOKED, (CHECKOUT / "config/apt/dpkg-binfmtd-sealed").read_text())
    archive = _build(sealed, _NAMES[0], script)
    done = sealed.run("dpkg", "--install", archive)
    assert (done.status == 0) == (script == REGISTERS), done.stderr
    assert (NAME in sealed.entries()) == (script == REGISTERS)
    assert refused(sealed)
    assert paused(sealed) == []


def test_apt_and_dpkg_with_the_hook(sealed: Booted) -> None:
    """Both hooks together open the seal for each call of dpkg, and close it at the end."""
    sealed.write(DPKG_HOOKED, (CHECKOUT / "config/apt/dpkg-binfmtd-sealed").read_text())
    done = install(sealed, REGISTERS, f"echo 1 >{MOUNT_POINT}/{ENTRY}\n")
    assert done.status == 0, done.stdout + done.stderr
    assert refused(sealed)
    assert paused(sealed) == []


def test_without_a_daemon(sealed: Booted) -> None:
    """Without a daemon the hook does nothing, and apt behaves as without the hook."""
    sealed.systemctl("stop", UNIT)
    assert install(sealed, "true\n").status == 0
    assert refused(sealed), "a daemon that has ended leaves it sealed"
    assert install(sealed, REGISTERS).status == 100


def test_binfmtd_is_restarted_in_that_run(sealed: Booted) -> None:
    """A daemon that restarts during the run, as in its own upgrade, obeys the pause, and seals at its end."""
    done = install(sealed, f"systemctl restart {UNIT}\n{REGISTERS}")
    assert done.status == 0, done.stdout + done.stderr
    assert refused(sealed)


def test_binfmtd_is_removed_in_that_run(sealed: Booted) -> None:
    """apt succeeds if its run removes the hook's script and the command."""
    away = f"systemctl stop {UNIT}\nmv /usr/bin/binfmtd /root/binfmtd.away\nmv {HOOK} /root/hook.away\n"
    try:
        assert install(sealed, away).status == 0
    finally:
        sealed.run("mv", "/root/binfmtd.away", "/usr/bin/binfmtd")
    assert not refused(sealed)


def test_only_the_command_is_removed(sealed: Booted) -> None:
    """The hook's script, which an administrator installed, does nothing once the command is removed."""
    try:
        assert install(sealed, f"systemctl stop {UNIT}\nmv /usr/bin/binfmtd /root/binfmtd.away\n").status == 0
        assert install(sealed, "true\n").status == 0
    finally:
        sealed.run("mv", "/root/binfmtd.away", "/usr/bin/binfmtd")


def test_not_sealed(sealed: Booted) -> None:
    """If the config has no seal, the hook pauses nothing: repairs go on during the run."""
    sealed.write(CONFIG, 'architectures = ["riscv64"]\nsealed = false\n')
    sealed.systemctl("reload", UNIT)
    assert install(sealed, 'test "$(binfmtd status --json | grep -c until)" = 0\n').status == 0
