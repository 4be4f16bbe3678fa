"""binfmt_misc is mounted, unmounted and covered under a running daemon."""

import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.cpu import shares_of_a_core
from support.daemon import CONFIG, Daemon, StartDaemon
from support.instance import MOUNT_POINT, Instance
from support.programs import exits_with, install
from support.waiting import SLOWNESS, wait_until

MOUNT = f"mount -t binfmt_misc binfmt_misc {MOUNT_POINT}"
UMOUNT = f"umount {MOUNT_POINT}"


def shell(instance: Instance, script: str) -> None:
    """Run a script inside, and assert that it succeeds."""
    result = instance.shell(script)
    assert result.returncode == 0, result.stderr


def mount_afresh(instance: Instance) -> None:
    """Exchange the instance for an empty one; skip if entries outlive their mounts."""
    shell(instance, f"{UMOUNT} && {MOUNT}")
    if instance.lent and instance.names():
        pytest.skip(f"entries outlive the last mount on some kernels before Linux 6.7 (this is {os.uname().release})")
    assert instance.names() == []


def serves(instance: Instance) -> bool:
    """Return True if the proper entry is the only one."""
    return instance.names() == ["one"]


def degraded_because(daemon: Daemon, words: str) -> None:
    """Wait for the problem in the status."""
    daemon.wait_status(lambda status: words in (status["problem"] or ""), f"a problem with {words!r}")
    assert daemon.status()["state"] == "degraded"


@pytest.mark.usefixtures("private_instances")  # on a host the daemon mounts it itself
def test_unmounted_and_mounted_again(instance: Instance, start_daemon: StartDaemon) -> None:
    """`umount` succeeds while the daemon runs; the status has the problem, and after a mount the daemon converges."""
    daemon = start_daemon(CONFIG)
    shell(instance, UMOUNT)
    degraded_because(daemon, "not binfmt_misc")
    shell(instance, MOUNT)
    wait_until(lambda: serves(instance), what="the entry in the new instance")
    daemon.wait_converged()
    line = daemon.wait_for_log("repaired")
    assert "removed by an unmount of binfmt_misc" in line["summary"]
    instance.remove("one")
    wait_until(lambda: serves(instance), what="a repair in the new instance")


@pytest.mark.usefixtures("private_instances")  # on a host the daemon mounts it itself
def test_lazily_unmounted(instance: Instance, start_daemon: StartDaemon) -> None:
    """A lazy unmount is noticed as well."""
    daemon = start_daemon(CONFIG)
    shell(instance, f"umount -l {MOUNT_POINT}")
    degraded_because(daemon, "not binfmt_misc")
    shell(instance, MOUNT)
    wait_until(lambda: serves(instance), what="the entry")


def test_unmounted_on_a_host(lent_instance: Instance, start_daemon: StartDaemon) -> None:
    """Outside of user namespaces the daemon itself mounts binfmt_misc again, with all entries."""
    daemon = start_daemon(CONFIG)
    for options in ("", "-l "):
        shell(lent_instance, f"umount {options}{MOUNT_POINT}")
        wait_until(lambda: serves(lent_instance), what="mounted again, with the entry")
        lent_instance.remove("one")
        wait_until(lambda: serves(lent_instance), what="a repair")
    daemon.wait_converged()


def test_a_fresh_instance_between_two_looks(instance: Instance, start_daemon: StartDaemon) -> None:
    """A new instance that is mounted while the daemon is stopped is recognised as another one."""
    daemon = start_daemon(CONFIG)
    daemon.process.send_signal(19)
    mount_afresh(instance)
    daemon.process.send_signal(18)
    wait_until(lambda: serves(instance), what="the entry in the new instance")
    instance.remove("one")
    wait_until(lambda: serves(instance), what="a repair in the new instance")


def test_the_ledger_is_for_one_instance(instance: Instance, start_daemon: StartDaemon) -> None:
    """An entry in a new instance is foreign, though an entry of that name and text was once ours."""
    start_daemon(CONFIG).kill()
    line = b":one:M::\\x00one::/usr/bin/true:F"
    mount_afresh(instance)
    instance.register(line)
    theirs = instance.inode("one")
    daemon = start_daemon("architectures = []\n")
    assert daemon.status()["foreign"] == [{"name": "one", "enabled": True}]
    assert instance.inode("one") == theirs


@pytest.mark.usefixtures("private_instances")  # on a host the daemon mounts it itself
def test_away_for_long(instance: Instance, start_daemon: StartDaemon) -> None:
    """While nothing is mounted, other mounts cause no log line; after the mount the daemon converges."""
    daemon = start_daemon(CONFIG)
    shell(instance, UMOUNT)
    degraded_because(daemon, "not binfmt_misc")
    daemon.wait_for_log("trouble")  # the status may come first
    said = len(daemon.logs())
    for _ in range(20):
        shell(instance, "mount -t tmpfs t /mnt && umount /mnt")
    assert len(daemon.logs()) == said
    shell(instance, MOUNT)
    wait_until(lambda: serves(instance), what="the entry in the new instance")
    daemon.wait_converged()


def test_mounted_over(instance: Instance, start_daemon: StartDaemon) -> None:
    """If another file system covers binfmt_misc, nothing is written there; it does not count as an empty instance."""
    daemon = start_daemon(CONFIG)
    shell(instance, f"mount -t tmpfs cover {MOUNT_POINT}")
    degraded_because(daemon, "a file system of type tmpfs is mounted there")
    shell(instance, f'test -z "$(ls -A {MOUNT_POINT})" && {UMOUNT}')
    daemon.wait_converged()
    instance.remove("one")
    wait_until(lambda: serves(instance), what="a repair after the cover is gone")


def test_stopped_when_it_is_just_back(instance: Instance, start_daemon: StartDaemon) -> None:
    """With on_stop = "remove" the entries are removed at the end even if the last scan found another file system."""
    for number in range(5):
        daemon = start_daemon('on_stop = "remove"\n' + CONFIG, directory=str(number))
        shell(instance, f"mount -t tmpfs cover {MOUNT_POINT}")
        daemon.wait_for_log("trouble")
        shell(instance, f"kill -STOP {daemon.pid} && {UMOUNT} && kill -TERM {daemon.pid} && kill -CONT {daemon.pid}")
        assert daemon.wait_exit() == 0
        assert instance.names() == []


def test_remounted_read_only(instance: Instance, start_daemon: StartDaemon) -> None:
    """A read-only mount is reported, and drift is repaired when it is writable again."""
    daemon = start_daemon(CONFIG)
    shell(instance, "mount -t tmpfs t /mnt && mkdir /mnt/second && mount -t binfmt_misc b /mnt/second")
    shell(instance, f"mount -o remount,bind,ro {MOUNT_POINT}")
    degraded_because(daemon, "read-only")
    shell(instance, "echo -1 > /mnt/second/one")
    assert instance.names() == []
    shell(instance, f"mount -o remount,bind,rw {MOUNT_POINT}")
    wait_until(lambda: serves(instance), what="the entry")
    daemon.wait_converged()


def test_covered_within_a_scan(instance: Instance, start_daemon: StartDaemon) -> None:
    """The kernel reports a change of the mount table once; the daemon misses none while a pass scans many entries."""
    for number in range(round(2000 / SLOWNESS)):
        instance.register(b":other%d:E::other%d::/usr/bin/true:" % (number, number))
    daemon = start_daemon(CONFIG)
    for number in range(9):  # ten repairs in ten seconds would be contention
        daemon.reload()
        pause = 0.002 * number
        # The daemon may have the cover open at that moment, which it closes at once: EBUSY.
        again = f"for _ in 1 2 3; do umount -q {MOUNT_POINT} && exit; sleep 0.05; done; exit 1"
        shell(instance, f"mount -t tmpfs cover {MOUNT_POINT}; sleep {pause}; {again}")
        instance.remove("one")
        wait_until(lambda: "one" in instance.names(), what="a repair after the cover is gone")


@pytest.fixture
def elsewhere(instance: Instance) -> Callable[[str], None]:
    """Return ``remount(how)``, which remounts the file system in another mount namespace, as a host does it.

    Then only the mount table of that namespace changes, so nothing wakes the daemon.
    """

    def remount(how: str) -> None:
        command = ["unshare", "-m", "--propagation", "private", "mount", "-o", f"remount,{how}", MOUNT_POINT]
        result = instance.run(command)
        assert result.returncode == 0, result.stderr

    return remount


def test_read_only_for_a_while_by_the_host(
    instance: Instance, start_daemon: StartDaemon, elsewhere: Callable[[str], None], tmp_path: Path
) -> None:
    """A sealed instance is reported after the first refused write; soon after it is writable again, all is repaired."""
    interpreter = tmp_path / "interpreter"
    shutil.copy("/usr/bin/true", interpreter)
    daemon = start_daemon(CONFIG.replace("/usr/bin/true", str(interpreter)))
    before = instance.inode("one")
    elsewhere("ro")
    shutil.copy("/usr/bin/false", tmp_path / "new")
    os.rename(tmp_path / "new", interpreter)
    degraded_because(daemon, f"{MOUNT_POINT}: binfmt_misc is sealed (its file system is read-only)")
    degraded_because(daemon, f"run `mount -o remount,rw {MOUNT_POINT}`")
    assert daemon.status()["mount"] == {"directory": MOUNT_POINT, "read_only": True, "host_unmounted": False}
    elsewhere("rw")
    instance.wait_registered_anew("one", before, 20)
    wait_until(lambda: serves(instance), 20, "no stand-in")
    daemon.wait_converged()
    assert daemon.status()["mount"] == {"directory": MOUNT_POINT, "read_only": False, "host_unmounted": False}
    daemon.wait_for_log("trouble_over")
    assert len(daemon.logs("trouble")) == len(daemon.logs("trouble_over")) == 1


def test_a_repair_while_it_is_read_only(
    instance: Instance, start_daemon: StartDaemon, elsewhere: Callable[[str], None]
) -> None:
    """If the first refused write is a stand-in's, the trouble is reported and ended in the same way."""
    daemon = start_daemon(CONFIG)
    os.kill(daemon.pid, signal.SIGSTOP)
    instance.remove("one")
    elsewhere("ro")
    os.kill(daemon.pid, signal.SIGCONT)
    degraded_because(daemon, "read-only")
    elsewhere("rw")
    wait_until(lambda: serves(instance), 20, "the entry")
    daemon.wait_converged()
    daemon.wait_for_log("trouble_over")
    assert len(daemon.logs("trouble")) == len(daemon.logs("trouble_over")) == 1


def test_other_mounts_change_nothing(instance: Instance, start_daemon: StartDaemon) -> None:
    """A mount elsewhere wakes the daemon, and changes nothing."""
    daemon = start_daemon(CONFIG)
    before = instance.inode("one")
    for _ in range(20):
        shell(instance, "mount -t tmpfs t /mnt && umount /mnt")
    assert instance.inode("one") == before
    assert daemon.status()["state"] == "converged"
    assert len(daemon.logs()) == 1, "nothing is logged when nothing happens"


@pytest.mark.usefixtures("private_instances")  # on a host the daemon mounts it itself
def test_started_before_the_mount(instance: Instance, start_daemon: StartDaemon) -> None:
    """In a user namespace without its own instance nothing is mounted: the daemon logs the reason, and waits."""
    shell(instance, UMOUNT)
    daemon = start_daemon(CONFIG, ready=False)
    assert "mounted there, not binfmt_misc" in daemon.wait_for_log("trouble")["reason"]
    assert "READY=1" not in daemon.notifications
    assert instance.run(["stat", "-f", "-c", "%T", MOUNT_POINT]).stdout.strip() == "tmpfs"
    shell(instance, MOUNT)
    daemon.wait_ready()
    assert serves(instance)


@pytest.mark.usefixtures("private_instances")  # in a user namespace
def test_never_mounts_in_a_user_namespace(instance: Instance, start_daemon: StartDaemon) -> None:
    """Nothing is mounted in a user namespace, where it would hide the host's handlers; the message names the option."""
    shell(instance, "mount -t tmpfs t /mnt && mkdir /mnt/empty")
    daemon = start_daemon(CONFIG, ("--mount", "/mnt/empty"), ready=False)
    reason = daemon.wait_for_log("trouble")["reason"]
    assert "this is a user namespace" in reason
    assert reason.endswith("--own-instance")
    assert instance.run(["stat", "-f", "-c", "%T", "/mnt/empty"]).stdout.strip() == "tmpfs"


@pytest.mark.parametrize("named", [True, False])
def test_bound_in_elsewhere(instance: Instance, start_daemon: StartDaemon, named: bool) -> None:
    """An instance at another path is used: named by --mount, or found in the mount table by its type."""
    shell(
        instance,
        f"mount -t tmpfs t /mnt && mkdir /mnt/elsewhere && mount -t binfmt_misc b /mnt/elsewhere && {UMOUNT}",
    )
    options = ("--mount", "/mnt/elsewhere") if named else ()
    daemon = start_daemon(CONFIG, options)
    assert daemon.status()["mount"] == {"directory": "/mnt/elsewhere", "read_only": False, "host_unmounted": False}
    assert "one" in instance.shell("ls /mnt/elsewhere").stdout.split()
    shell(instance, "echo -1 > /mnt/elsewhere/one")
    wait_until(lambda: "one" in instance.shell("ls /mnt/elsewhere").stdout.split(), what="a repair")


def test_mounts_where_it_may(instance: Instance) -> None:
    """Outside of user namespaces binfmt_misc is mounted if it is missing, but never over another file system.

    This takes CAP_SYS_ADMIN. The first user namespace is the host's, which tests must not touch: so the test pretends
    that this is the first one.
    """
    script = (
        "import sys; from binfmtd.kernel import mount; mount.in_user_namespace = lambda: False\n"
        "try: print(mount.find_or_mount(mount.Where(sys.argv[1])).directory)\n"
        "except mount.MountError as error: print(error)\n"
    )
    shell(instance, "mount -t tmpfs t /mnt && mkdir /mnt/free /mnt/taken && mount -t tmpfs t /mnt/taken")
    command = [sys.executable, "-c", script]
    assert instance.run([*command, "/mnt/free"]).stdout == "/mnt/free\n"
    assert instance.run(["stat", "-f", "-c", "%T", "/mnt/free"]).stdout == "binfmt_misc\n"
    assert "a file system of type tmpfs is mounted there" in instance.run([*command, "/mnt/taken"]).stdout
    assert instance.run(["stat", "-f", "-c", "%T", "/mnt/taken"]).stdout == "tmpfs\n"
    assert "is not a directory" in instance.run([*command, "/mnt/nothing"]).stdout


IN_A_CONTAINER = f"""#!/bin/sh
exec unshare -m --propagation unchanged sh -c '
mount --make-rslave / && mount -t tmpfs t /mnt && mkdir /mnt/bound /mnt/above
mount --rbind {MOUNT_POINT} /mnt/bound
[ -z "$ABOVE" ] || mount --rbind /proc/sys/fs /mnt/above
mount --make-private /proc && umount {MOUNT_POINT}
exec {sys.executable} "$@"' sh "$@"
"""


@pytest.fixture
def start_container(instance: Instance, tmp_path: Path) -> Iterator[Callable[..., Daemon]]:
    """Yield a function that starts a daemon in a "container" with the mount of its "host", the instance, bound in.

    With ``above`` the directory above is bound in as well, and mounts and unmounts there propagate to the container.
    """
    shell(instance, "mount --make-rshared /")
    install(tmp_path / "python", IN_A_CONTAINER.encode())
    started = []

    def start(config: str, *, above: bool) -> Daemon:
        environment = {"ABOVE": "1"} if above else {}
        options = ("--mount", "/mnt/bound")
        started.append(Daemon(instance, tmp_path / "daemon", config, options, environment, str(tmp_path / "python")))
        started[-1].wait_ready()
        return started[-1]

    yield start
    for daemon in started:
        daemon.close()


@pytest.mark.usefixtures("private_instances")  # entries go with the last mount
def test_a_container_keeps_what_its_host_unmounts(instance: Instance, start_container: Callable[..., Daemon]) -> None:
    """The daemon reports at its next scan that the host has unmounted it; after a mount there no entry is missing."""
    daemon = start_container('resync = "1s"\n' + CONFIG, above=False)
    shell(instance, UMOUNT)
    degraded_because(daemon, "the host has unmounted binfmt_misc")
    mount = daemon.status()["mount"]
    assert mount == {"directory": "/mnt/bound", "read_only": False, "host_unmounted": True}
    shell(instance, MOUNT)
    assert serves(instance)


@pytest.mark.usefixtures("private_instances")  # entries go with the last mount
def test_a_container_that_sees_what_its_host_mounts(instance: Instance, start_container: Callable[..., Daemon]) -> None:
    """With the directory above bound in, the daemon wakes for the unmount, and for the mount that ends the trouble."""
    daemon = start_container(CONFIG, above=True)
    shell(instance, UMOUNT)
    degraded_because(daemon, "the host has unmounted binfmt_misc")
    shell(instance, MOUNT)
    daemon.wait_converged()
    assert serves(instance)


@pytest.mark.usefixtures("private_instances")  # on a host the daemon mounts it itself
def test_the_status_does_not_claim_what_is_unmounted(instance: Instance, start_daemon: StartDaemon) -> None:
    """Without an instance no handler is shown as registered; a reload meanwhile takes effect after the mount."""
    daemon = start_daemon(CONFIG)
    shell(instance, UMOUNT)
    daemon.wait_status(lambda status: status["mount"] is None, "no mount")
    assert daemon.status()["handlers"] == []
    assert daemon.status()["state"] == "degraded"
    daemon.config.write_text(CONFIG.replace("one", "two"))
    daemon.reload()
    daemon.wait_status(lambda status: status["config"]["generation"] == 2, "the new generation")
    shell(instance, MOUNT)
    wait_until(lambda: instance.names() == ["two"], what="the new handler in the new instance")


@pytest.mark.usefixtures("private_instances")  # on a host the daemon mounts it itself
def test_without_an_instance_nothing_is_due(instance: Instance, start_daemon: StartDaemon, tmp_path: Path) -> None:
    """A changed interpreter causes no repeated attempts while nothing is mounted."""
    interpreter = install(tmp_path / "interpreter", exits_with(0))
    daemon = start_daemon(CONFIG.replace("/usr/bin/true", str(interpreter)))
    shell(instance, UMOUNT)
    degraded_because(daemon, "not binfmt_misc")
    os.utime(interpreter)
    (share,) = shares_of_a_core(2 * SLOWNESS, daemon.pid)
    assert share < 0.1
    shell(instance, MOUNT)
    wait_until(lambda: serves(instance), what="the entry")
