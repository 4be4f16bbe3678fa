"""The one file on a booted Debian 12 without Python, installed with the lines of docs/packages.md."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.booted import CONFIG, ENTRY, MOUNT_POINT, PROGRAM, UNIT, Booted
from support.cli import CHECKOUT
from support.docker_images import copy_checkout
from support.doctor import failures
from support.required import require
from support.waiting import wait_until

pytestmark = pytest.mark.packages

NEEDED = ("systemd-nspawn", "mmdebstrap", "dpkg-deb")
PACKAGES = ("dbus", "systemd", "systemd-sysv")
COPY = "/root/binfmtd"
ANSWER = 51
DEADLINE_SECONDS = 30
GET = r"exec 3<>/dev/tcp/127.0.0.1/9427; printf 'GET /metrics HTTP/1.0\r\n\r\n' >&3; cat <&3"


def documented_lines() -> list[str]:
    """Return the lines that install the file on a host, without the one that builds it."""
    section = (CHECKOUT / "docs/packages.md").read_text().partition("\n## One file\n")[2].partition("\n## ")[0]
    first, *lines = section.partition("```sh\n")[2].partition("```")[0].splitlines()
    assert first.startswith("make one-file ")
    return lines


@pytest.fixture(scope="module")
def machine(one_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Booted]:
    """Yield a Debian 12 on which the unit runs the one file, with one emulator."""
    require("test-packages", NEEDED, "systemd-nspawn boots a machine")
    directory = tmp_path_factory.mktemp("one-file")
    # Its own network: another machine or program may have the port of the metrics.
    with Booted(directory, "bookworm", PACKAGES, nspawn=["--private-network"], installed=False) as booted:
        copy_checkout(booted.root / COPY.lstrip("/"))
        target = booted.root / COPY.lstrip("/") / one_file.relative_to(CHECKOUT)
        target.parent.mkdir(parents=True)
        shutil.copy(one_file, target)
        booted.install_emulator(ANSWER)
        for line in documented_lines():
            done = booted.run("sh", "-c", f"cd {COPY} && {line}")
            assert done.status == 0, (line, done, booted.run("journalctl", "--unit", UNIT).stdout)
        yield booted


def test_the_machine(machine: Booted) -> None:
    """The machine is a Debian 12 with systemd 252 and without Python."""
    assert machine.run("systemctl", "--version").stdout.startswith("systemd 252 ")
    assert machine.run("sh", "-c", "command -v python3").stdout == ""


def test_starts(machine: Booted) -> None:
    """The unit is ready, its status counts the handlers, and a foreign program runs."""
    assert (machine.show("ActiveState"), machine.show("Type")) == ("active", "notify")
    assert machine.show("StatusText").startswith("1 handler in order")
    assert machine.answer() == ANSWER
    doctor = machine.run("binfmtd", "doctor", "--json")
    assert doctor.stderr == ""
    assert failures(doctor) == [("emulators", "broken")]  # the test's emulator is none


def test_the_sandbox_allows_libraries_from_memory(machine: Booted) -> None:
    """Under MemoryDenyWriteExecute and the filter of system calls the daemon has loaded pydantic_core."""
    assert machine.show("MemoryDenyWriteExecute") == "yes"
    maps = f"/proc/{machine.show('MainPID')}/maps"
    wait_until(lambda: "/memfd:_pydantic_core" in machine.run("cat", maps).stdout, DEADLINE_SECONDS, "pydantic_core")
    assert machine.journal("restart_needed") == []


def test_repairs_and_reloads(machine: Booted) -> None:
    """The sandboxed daemon registers a removed entry again, and `systemctl reload` works."""
    machine.systemctl("restart", UNIT)
    assert machine.run("sh", "-c", f"echo -1 >{MOUNT_POINT}/{ENTRY}").status == 0
    wait_until(lambda: machine.show("StatusText").endswith(", 1 repair"), DEADLINE_SECONDS, "the repair")
    pid = machine.show("MainPID")
    machine.systemctl("reload", UNIT)
    assert machine.show("MainPID") == pid
    machine.write(CONFIG, "architecturez = []\n")
    assert machine.run("systemctl", "reload", UNIT).status != 0
    machine.write(CONFIG, "")
    machine.systemctl("reload", UNIT)
    assert ENTRY in machine.entries()
    assert machine.answer() == ANSWER


def test_a_flush_by_systemd_binfmt(machine: Booted) -> None:
    """After `systemctl restart systemd-binfmt`, which flushes all entries, the daemon's entry is there again."""
    machine.systemctl("restart", UNIT)
    machine.run("sh", "-c", f"echo -1 >{MOUNT_POINT}/status")
    wait_until(lambda: ENTRY in machine.entries(), DEADLINE_SECONDS, "the entry")
    assert machine.restart_systemd_binfmt().status == 0
    wait_until(lambda: ENTRY in machine.entries() and machine.answer() == ANSWER, DEADLINE_SECONDS, "the entry")


def test_an_upgrade(machine: Booted) -> None:
    """A newer file takes the old one's place while the daemon runs, and the restart keeps the entry."""
    machine.systemctl("restart", UNIT)
    inode = machine.run("stat", "--format=%i", f"{MOUNT_POINT}/{ENTRY}").stdout
    copy = next(line for line in documented_lines() if line.startswith("install -m 755 "))
    assert machine.run("sh", "-c", f"cd {COPY} && {copy}").status == 0
    machine.systemctl("reload", UNIT)
    machine.systemctl("restart", UNIT)
    assert machine.run("stat", "--format=%i", f"{MOUNT_POINT}/{ENTRY}").stdout == inode


def test_probe(machine: Booted) -> None:
    """`probe` runs the registered handler, which answers with another exit status than QEMU would."""
    done = machine.run("binfmtd", "probe", "--json", "riscv64")
    assert done.stderr == ""
    assert str(ANSWER) in done.stdout


def test_sandbox(machine: Booted) -> None:
    """`sandbox` starts the file once more as its daemon, and a foreign program runs there."""
    done = machine.run("binfmtd", "sandbox", "--arch", "riscv64", "--", "sh", "-c", PROGRAM)
    assert (done.status, done.stderr) == (ANSWER, "")


def test_metrics(machine: Booted) -> None:
    """The socket of the unit answers with Prometheus' metrics, which prometheus_client writes."""
    machine.systemctl("stop", UNIT)
    machine.systemctl("enable", "--now", "binfmtd-metrics.socket")
    machine.systemctl("start", UNIT)
    done = machine.run("bash", "-c", GET)
    assert "200 OK" in done.stdout
    assert "\nbinfmtd_" in done.stdout


def test_stops(machine: Booted) -> None:
    """A stop is clean, and leaves the entries registered."""
    machine.systemctl("restart", UNIT)
    machine.systemctl("stop", UNIT)
    assert (machine.show("Result"), machine.show("ExecMainStatus")) == ("success", "0")
    assert machine.answer() == ANSWER
