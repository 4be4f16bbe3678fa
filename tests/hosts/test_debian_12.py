"""Debian 12, with systemd 252 and Python 3.11, where a user installs binfmtd as docs/systemd.md says.

Its python3-pydantic has version 1, so binfmtd is in a virtual environment.  The document's lines run in the machine.
"""

import re
import shutil
from collections.abc import Iterator

import pytest
from support.booted import DROP_INS, ENTRY, MOUNT_POINT, UNIT, Booted
from support.cli import CHECKOUT
from support.docker_images import copy_checkout
from support.images import pip_settings
from support.required import Needs
from support.waiting import wait_until

pytestmark = pytest.mark.hosts

PACKAGES = ("ca-certificates", "dbus", "make", "python3-venv", "qemu-user-static", "systemd", "systemd-sysv")
ONE_EMULATOR = ("--dpkgopt=path-exclude=/usr/bin/qemu-*-static", "--dpkgopt=path-include=/usr/bin/qemu-riscv64-static")
BINFMTD = "/opt/binfmtd/bin/binfmtd"
EMULATED = 42  # the exit status of the tiny program
DEADLINE_SECONDS = 30


def documented_lines() -> list[str]:
    """Return the lines of the section on Debian 12, without that of apt-get: the machine has these packages."""
    section = (CHECKOUT / "docs" / "systemd.md").read_text().partition("\n## Debian 12\n")[2].partition("\n## ")[0]
    packages, *lines = section.partition("```sh\n")[2].partition("```")[0].splitlines()
    assert packages.split()[:2] == ["apt-get", "install"]
    assert set(packages.split()[2:]) <= set(PACKAGES)
    return lines


@pytest.fixture(scope="module")
def machine(needs: Needs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Booted]:
    """Yield a Debian 12 on which binfmtd was installed and started with the document's lines."""
    needs("systemd-nspawn", "mmdebstrap", "dpkg-deb", "make")
    with Booted(tmp_path_factory.mktemp("debian-12"), "bookworm", PACKAGES, ONE_EMULATOR) as booted:
        copy_checkout(booted.root / "root" / "binfmtd")
        settings = pip_settings() | {"retries": "10", "timeout": "60"}  # the network may be slow for a moment
        if certificates := settings.get("cert"):
            shutil.copy(certificates, booted.root / "root" / "pip.crt")
            settings["cert"] = "/root/pip.crt"
        booted.write("/etc/pip.conf", "\n".join(["[global]", *(f"{key} = {settings[key]}" for key in settings), ""]))
        for line in documented_lines():
            done = booted.run("sh", "-c", f"cd /root/binfmtd && {line}")
            assert done.status == 0, (line, done, booted.run("journalctl", "--unit", UNIT).stdout)
        yield booted


def test_versions(machine: Booted) -> None:
    """The machine is what these tests are about: systemd 252 and Python 3.11."""
    assert machine.run("systemctl", "--version").stdout.startswith("systemd 252 ")
    assert machine.run("/opt/binfmtd/bin/python", "--version").stdout.startswith("Python 3.11.")


def test_starts(machine: Booted) -> None:
    """With the drop-in the unit is ready, its status counts the handlers, and a foreign program runs."""
    assert (machine.show("ActiveState"), machine.show("Type")) == ("active", "notify")
    assert machine.show("StatusText").startswith("1 handler in order")
    assert machine.answer() == EMULATED
    doctor = machine.run(BINFMTD, "doctor", "--json")
    assert (doctor.stderr, doctor.json["failures"]) == ("", 0)


def test_repairs_and_reloads(machine: Booted) -> None:
    """The sandboxed daemon registers a removed entry again, and `systemctl reload` works."""
    machine.systemctl("restart", UNIT)
    assert machine.run("sh", "-c", f"echo -1 >{MOUNT_POINT}/{ENTRY}").status == 0
    wait_until(lambda: machine.show("StatusText") == "1 handler in order, 1 repair", DEADLINE_SECONDS, "the repair")
    pid = machine.show("MainPID")
    machine.systemctl("reload", UNIT)
    assert machine.show("MainPID") == pid
    assert ENTRY in machine.entries()
    assert machine.answer() == EMULATED


def test_stops(machine: Booted) -> None:
    """A stop is clean, and leaves the entries registered."""
    machine.systemctl("restart", UNIT)
    machine.systemctl("stop", UNIT)
    assert (machine.show("Result"), machine.show("ExecMainStatus")) == ("success", "0")
    assert machine.answer() == EMULATED
    machine.systemctl("start", UNIT)


def test_a_flush_by_systemd_binfmt(machine: Booted) -> None:
    """`systemctl restart systemd-binfmt` flushes all entries; the daemon's is there again, and serves."""
    machine.systemctl("restart", UNIT)
    machine.restart_systemd_binfmt()

    def repaired() -> bool:  # once or, if systemd is slow between the flush at its end and that at its start, twice
        in_order = re.fullmatch(r"1 handler in order, \d+ repairs?", machine.show("StatusText"))
        return bool(in_order) and "qemu-riscv64-static" in machine.run("cat", f"{MOUNT_POINT}/{ENTRY}").stdout

    wait_until(repaired, DEADLINE_SECONDS, "the repair")
    assert machine.answer() == EMULATED


def test_without_the_drop_in(machine: Booted) -> None:
    """Without it systemd 252 hides binfmt_misc from the daemon, whose status names the drop-in."""
    drop_in = machine.root / DROP_INS.lstrip("/")
    shutil.move(drop_in, machine.root / "root" / "aside")
    try:
        machine.systemctl("daemon-reload")
        machine.run("systemctl", "restart", "--no-block", UNIT)
        wait_until(
            lambda: "install drop-ins/before-253.conf" in machine.show("StatusText"), DEADLINE_SECONDS, "the reason"
        )
    finally:
        shutil.move(machine.root / "root" / "aside", drop_in)
        machine.systemctl("daemon-reload")
        machine.systemctl("restart", UNIT)
    assert machine.show("StatusText").startswith("1 handler in order")


def test_a_proc_that_hides_processes(machine: Booted) -> None:
    """With hidepid=2 the daemon, which has no capability, does not see process 1: it starts, repairs and reloads."""
    assert machine.run("mount", "-o", "remount,hidepid=2", "/proc").status == 0
    try:
        assert "hidepid=" in machine.run("cat", "/proc/mounts").stdout
        test_repairs_and_reloads(machine)
        doctor = machine.run(BINFMTD, "doctor", "--json")
        assert (doctor.stderr, doctor.json["failures"]) == ("", 0)
    finally:
        machine.run("mount", "-o", "remount,hidepid=0", "/proc")
