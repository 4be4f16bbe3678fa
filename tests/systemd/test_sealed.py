"""``sealed = true`` under real systemd: `sealed.conf` allows enough, within the unit's sandbox."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.booted import CONFIG, DROP_INS, ENTRY, MOUNT_POINT, UNIT, Booted
from support.cli import CHECKOUT
from support.waiting import wait_until

pytestmark = pytest.mark.systemd

SEALED = 'architectures = ["riscv64"]\nsealed = true\n'
DEADLINE_SECONDS = 30
EMULATOR = 51
FS_TYPE = " - binfmt_misc "

Seal = Callable[..., Booted]


@pytest.fixture
def seal(service: Booted) -> Iterator[Seal]:
    """Yield a function that starts the service with ``sealed = true`` and these drop-ins; unseal at the end."""

    def seal(*drop_ins: str) -> Booted:
        for name in drop_ins:
            service.write(f"{DROP_INS}/{name}", (CHECKOUT / "systemd/drop-ins" / name).read_text())
        service.write(CONFIG, SEALED)
        service.systemctl("daemon-reload")
        service.systemctl("restart", UNIT)
        return service

    yield seal
    service.systemctl("stop", UNIT)
    service.write(CONFIG, 'architectures = ["riscv64"]\n')
    if not mounted(service):
        service.run("mount", "-t", "binfmt_misc", "binfmt_misc", MOUNT_POINT)
    assert service.run("mount", "-o", "remount,rw", MOUNT_POINT).status == 0
    service.systemctl("reset-failed")


def mounted(machine: Booted) -> bool:
    return machine.run("mountpoint", "--quiet", MOUNT_POINT).status == 0


def read_only(machine: Booted) -> bool:
    """Return True if the superblock is read-only, by the last field of the mount table."""
    (last, *_) = [line for line in machine.run("cat", "/proc/self/mountinfo").stdout.splitlines() if FS_TYPE in line]
    return "ro" in last.split()[-1].split(",")


def remove_entry(machine: Booted) -> str:
    return machine.run("sh", "-c", f"echo -1 >{MOUNT_POINT}/{ENTRY}").stderr


def status(machine: Booted) -> Any:
    return json.loads(machine.run("binfmtd", "status", "--json").stdout)


def test_sealed(seal: Seal) -> None:
    """With one drop-in the instance is sealed once the unit has started; no entry can be removed, and programs run."""
    machine = seal("sealed.conf")
    assert read_only(machine)
    assert "Read-only file system" in remove_entry(machine)
    assert machine.answer() == EMULATOR
    assert status(machine)["seal"]["state"] == "sealed"
    assert machine.show("StatusText") == "1 handler in order"
    capabilities = machine.run("cat", f"/proc/{machine.show('MainPID')}/status").stdout
    assert "CapEff:\t0000000000200000\n" in capabilities, "CAP_SYS_ADMIN, and no other"


def test_the_commands_of_the_manual(seal: Seal) -> None:
    """The commands of docs/systemd.md, run unchanged, seal the instance; systemd then skips systemd-binfmt."""
    section = (CHECKOUT / "docs/systemd.md").read_text().partition("\n## Sealed\n")[2]
    commands = section.partition("```sh\n")[2].partition("```")[0]
    machine = seal()
    machine.write(CONFIG, 'architectures = ["riscv64"]\n')
    try:
        typed = machine.run("sh", "-euc", commands)
        assert typed.status == 0, typed.stderr
        assert read_only(machine)
        assert machine.restart_systemd_binfmt().status == 0
        assert machine.run("systemctl", "is-active", "systemd-binfmt.service").stdout == "inactive\n"
    finally:
        machine.run("rm", "-rf", "/etc/binfmtd/conf.d", "/etc/systemd/system/systemd-binfmt.service.d")


def test_its_own_writes(seal: Seal) -> None:
    """A reload registers and removes through the seal, which is closed again afterwards."""
    machine = seal("sealed.conf")
    machine.write(CONFIG, f"{SEALED}[handlers.x]\nextension = 'x'\ninterpreter = '/usr/bin/true'\n")
    machine.systemctl("reload", UNIT)
    assert "x" in machine.entries()
    machine.write(CONFIG, SEALED)
    machine.systemctl("reload", UNIT)
    assert "x" not in machine.entries()
    assert read_only(machine)


def test_restart_and_stop(seal: Seal) -> None:
    """Neither a restart nor a stop opens the seal, and a daemon that starts under its own seal reports no problem."""
    machine = seal("sealed.conf")
    machine.systemctl("restart", UNIT)
    assert read_only(machine)
    assert status(machine)["seal"]["state"] == "sealed"
    assert status(machine)["problem"] is None
    machine.systemctl("stop", UNIT)
    assert read_only(machine)
    assert machine.answer() == EMULATOR


def test_sealed_by_mount_before_the_daemon_starts(seal: Seal) -> None:
    """The daemon can write after `mount -o remount,ro`, which makes the host's mount read-only as well."""
    machine = seal("sealed.conf")
    machine.systemctl("stop", UNIT)
    assert machine.run("mount", "-o", "remount,rw", MOUNT_POINT).status == 0
    remove_entry(machine)
    assert machine.run("mount", "-o", "remount,ro", MOUNT_POINT).status == 0
    machine.systemctl("start", UNIT)
    assert ENTRY in machine.entries()
    assert status(machine)["seal"]["state"] == "sealed"


def test_pause(seal: Seal) -> None:
    """`binfmtd pause` opens the seal, and `binfmtd resume` closes it."""
    machine = seal("sealed.conf")
    assert machine.run("binfmtd", "pause").status == 0
    assert not read_only(machine)
    assert machine.run("binfmtd", "resume").status == 0
    assert read_only(machine)


def test_systemd_binfmt(seal: Seal) -> None:
    """A restart of systemd-binfmt succeeds, and leaves the entries."""
    machine = seal("sealed.conf")
    inode = machine.run("stat", "--format=%i", f"{MOUNT_POINT}/{ENTRY}").stdout
    assert machine.restart_systemd_binfmt().status == 0
    assert machine.run("stat", "--format=%i", f"{MOUNT_POINT}/{ENTRY}").stdout == inode


def test_unmounted_on_the_host(seal: Seal) -> None:
    """Programs still run after an unmount on the host, and the next mount shows the same entries, sealed."""
    machine = seal("sealed.conf")
    inode = machine.run("stat", "--format=%i", f"{MOUNT_POINT}/{ENTRY}").stdout
    machine.unmount()
    assert machine.answer() == EMULATOR
    wait_until(lambda: status(machine)["mount"] is None, DEADLINE_SECONDS, "the unmount noticed")
    assert machine.answer() == EMULATOR
    assert machine.run("mount", "-t", "binfmt_misc", "binfmt_misc", MOUNT_POINT).status == 0
    assert machine.run("stat", "--format=%i", f"{MOUNT_POINT}/{ENTRY}").stdout == inode
    wait_until(lambda: status(machine)["seal"]["state"] == "sealed", DEADLINE_SECONDS, "the seal")
    assert read_only(machine)


def test_mounted_again(seal: Seal) -> None:
    """With `zz-mount.conf` as well the daemon mounts the instance on the host again, and no program fails meanwhile."""
    own_instance = "[Service]\nEnvironment=BINFMTD_OWN_INSTANCE=1\n"
    seal("sealed.conf", "zz-mount.conf").write(f"{DROP_INS}/own.conf", own_instance)
    machine = seal()
    machine.unmount()
    assert machine.answer() == EMULATOR
    wait_until(lambda: mounted(machine), DEADLINE_SECONDS, "a mount by the daemon")
    wait_until(lambda: ENTRY in machine.entries() and read_only(machine), DEADLINE_SECONDS, "the seal")
    assert machine.answer() == EMULATOR


def test_without_the_drop_in(seal: Seal) -> None:
    """Without the drop-in the status has the reason for not sealing, with the file to install; repairs go on."""
    machine = seal()
    assert status(machine)["seal"]["state"] == "impossible"
    assert "sealed.conf" in status(machine)["seal"]["reason"]
    assert not read_only(machine)
    assert remove_entry(machine) == ""
    wait_until(lambda: ENTRY in machine.entries(), DEADLINE_SECONDS, "the repair")
    assert machine.answer() == EMULATOR
