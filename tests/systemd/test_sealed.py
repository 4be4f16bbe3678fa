"""``sealed = true`` under real systemd: what `sealed.conf` allows is enough, in the sandbox that the unit has."""

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
    """Yield what starts the service with ``sealed = true`` and the drop-ins of these names; opened at the end."""

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
    """Tell if the superblock is read-only, which the mount table says in its last field."""
    (last, *_) = [line for line in machine.run("cat", "/proc/self/mountinfo").stdout.splitlines() if FS_TYPE in line]
    return "ro" in last.split()[-1].split(",")


def remove_entry(machine: Booted) -> str:
    return machine.run("sh", "-c", f"echo -1 >{MOUNT_POINT}/{ENTRY}").stderr


def status(machine: Booted) -> Any:
    return json.loads(machine.run("binfmtd", "status", "--json").stdout)


def test_sealed(seal: Seal) -> None:
    """With one drop-in it is sealed once the unit has started; nothing can be removed, and programs run."""
    machine = seal("sealed.conf")
    assert read_only(machine)
    assert "Read-only file system" in remove_entry(machine)
    assert machine.answer() == EMULATOR
    assert status(machine)["seal"]["state"] == "sealed"
    assert machine.show("StatusText") == "1 handler in order"
    capabilities = machine.run("cat", f"/proc/{machine.show('MainPID')}/status").stdout
    assert "CapEff:\t0000000000200000\n" in capabilities, "CAP_SYS_ADMIN, and no other"


def test_as_the_manual_says(seal: Seal) -> None:
    """The commands of docs/systemd.md, as they are typed, have it sealed; and systemd-binfmt is skipped."""
    section = (CHECKOUT / "docs/systemd.md").read_text().partition("\n## Sealed\n")[2]
    commands = section.partition("```sh\n")[2].partition("```")[0]
    machine = seal()
    machine.write(CONFIG, 'architectures = ["riscv64"]\n')
    try:
        typed = machine.run("sh", "-euc", commands)
        assert typed.status == 0, typed.stderr
        assert read_only(machine)
        machine.systemctl("restart", "systemd-binfmt.service")
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
    """Neither opens it, and the daemon that starts beside its own seal has nothing to say against it."""
    machine = seal("sealed.conf")
    machine.systemctl("restart", UNIT)
    assert read_only(machine)
    assert status(machine)["seal"]["state"] == "sealed"
    assert status(machine)["problem"] is None
    machine.systemctl("stop", UNIT)
    assert read_only(machine)
    assert machine.answer() == EMULATOR


def test_sealed_by_mount_before_the_daemon_starts(seal: Seal) -> None:
    """`mount -o remount,ro` makes the host's mount read-only as well; the daemon starts beside that, and can write."""
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
    """Its restart ends well, and leaves what is registered."""
    machine = seal("sealed.conf")
    inode = machine.run("stat", "--format=%i", f"{MOUNT_POINT}/{ENTRY}").stdout
    machine.systemctl("restart", "systemd-binfmt.service")
    assert machine.run("stat", "--format=%i", f"{MOUNT_POINT}/{ENTRY}").stdout == inode


def test_unmounted_on_the_host(seal: Seal) -> None:
    """Programs run on without any mount on the host, and a mount shows the same entries, sealed."""
    machine = seal("sealed.conf")
    inode = machine.run("stat", "--format=%i", f"{MOUNT_POINT}/{ENTRY}").stdout
    assert machine.run("umount", MOUNT_POINT).status == 0
    assert machine.answer() == EMULATOR
    wait_until(lambda: status(machine)["mount"] is None, DEADLINE_SECONDS, "the unmount noticed")
    assert machine.answer() == EMULATOR
    assert machine.run("mount", "-t", "binfmt_misc", "binfmt_misc", MOUNT_POINT).status == 0
    assert machine.run("stat", "--format=%i", f"{MOUNT_POINT}/{ENTRY}").stdout == inode
    wait_until(lambda: status(machine)["seal"]["state"] == "sealed", DEADLINE_SECONDS, "the seal")
    assert read_only(machine)


def test_mounted_again(seal: Seal) -> None:
    """With `mount.conf`, too, the daemon mounts it for the host, and no program fails meanwhile."""
    seal("sealed.conf", "mount.conf").write(f"{DROP_INS}/own.conf", "[Service]\nEnvironment=BINFMTD_OWN_INSTANCE=1\n")
    machine = seal()
    assert machine.run("umount", MOUNT_POINT).status == 0
    assert machine.answer() == EMULATOR
    wait_until(lambda: mounted(machine), DEADLINE_SECONDS, "a mount by the daemon")
    wait_until(lambda: ENTRY in machine.entries() and read_only(machine), DEADLINE_SECONDS, "the seal")
    assert machine.answer() == EMULATOR


def test_without_the_drop_in(seal: Seal) -> None:
    """The daemon says once that it cannot seal, and what to install; it registers and repairs as ever."""
    machine = seal()
    assert status(machine)["seal"]["state"] == "impossible"
    assert "sealed.conf" in status(machine)["seal"]["reason"]
    assert not read_only(machine)
    assert remove_entry(machine) == ""
    wait_until(lambda: ENTRY in machine.entries(), DEADLINE_SECONDS, "the repair")
    assert machine.answer() == EMULATOR
