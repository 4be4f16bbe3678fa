"""Without a free inotify instance or watch the daemon polls, and it uses events again as soon as there is one."""

import os
import time
from contextlib import suppress
from pathlib import Path

import pytest
from support import Times
from support.cli import BINFMTD
from support.daemon import CONFIG, Daemon, StartDaemon, pause_and_resume
from support.instance import MOUNT_POINT, Instance
from support.waiting import SLOWNESS, wait_until

# The limits are those of a user in a user namespace; in the first one they would apply to this test, too.
pytestmark = pytest.mark.usefixtures("private_instances")
LIMITS = {"max_inotify_instances": "max_user_instances", "max_inotify_watches": "max_user_watches"}
PLENTY = 1000
ATTEMPTS = 3


def allow(instance: Instance, limit: str, number: int) -> None:
    """Set how many of these all processes in the instance's user namespace may have together."""
    instance.shell(f"echo {number} > /proc/sys/user/{limit}", check=True)


def stat(daemon: Daemon) -> list[str]:
    """Return the fields of proc_pid_stat(5) from the third on."""
    return Path(f"/proc/{daemon.pid}/stat").read_text().rpartition(")")[2].split()


def cpu_seconds(daemon: Daemon) -> float:
    fields = stat(daemon)
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def waits(daemon: Daemon) -> bool:
    """Return True if the daemon waits for events, which is its only interruptible sleep."""
    return stat(daemon)[0] == "S"


def text_of(instance: Instance, name: str) -> str:
    try:
        return instance.read(name)
    except FileNotFoundError:
        return ""


@pytest.mark.parametrize("limit", LIMITS)
def test_used_up_at_the_start(instance: Instance, start_daemon: StartDaemon, limit: str) -> None:
    """Without inotify the daemon starts, logs once which limit is reached, repairs, and recovers by itself."""
    allow(instance, limit, 0)
    daemon = start_daemon(CONFIG)
    status = daemon.wait_status(lambda status: status["state"] == "degraded")
    instance.remove("one")
    wait_until(lambda: "one" in instance.names(), what="a repair without any event")
    instance.write("one", b"0")
    wait_until(lambda: text_of(instance, "one").startswith("enabled"), what="enabled without any event")
    daemon.wait_for_log("trouble")
    (trouble,) = daemon.logs("trouble")
    assert LIMITS[limit] in trouble["reason"]
    assert trouble["reason"] in str(status)
    assert not daemon.logs("directory_unwatched")
    pause_and_resume(instance, daemon)
    allow(instance, limit, PLENTY)
    daemon.wait_converged()
    daemon.wait_for_log("trouble_over")
    assert len(daemon.logs("trouble_over")) == 1
    passes = daemon.status()["passes"]
    instance.remove("one")
    daemon.wait_status(lambda status: status["passes"] > passes and status["state"] == "converged")
    by_event = "one removed by another process"  # polling finds only that it is missing
    wait_until(
        lambda: any(by_event in line["summary"] for line in daemon.logs("repaired")), what="a repair by an event"
    )


@pytest.mark.parametrize("limit", LIMITS)
def test_the_files_are_watched_again(instance: Instance, start_daemon: StartDaemon, limit: str) -> None:
    """As soon as inotify can be used, pauses and a changed config are noticed at once."""
    config = "reload_on_change = true\n" + CONFIG
    allow(instance, limit, 0)
    daemon = start_daemon(config)
    daemon.wait_status(lambda status: status["state"] == "degraded")
    allow(instance, limit, PLENTY)
    daemon.wait_converged()
    result = instance.run([*BINFMTD, "pause", "--state-dir", str(daemon.state_directory)])
    assert result.returncode == 0, result.stderr
    daemon.config.write_text(f"{config}# changed\n")
    daemon.wait_for_log("config_reloaded")


def test_what_it_wrote_without_events(instance: Instance, start_daemon: StartDaemon) -> None:
    """A write that the daemon made without a watch does not hide an equal write of another process later."""
    assert any(finds_it_by_an_event(instance, start_daemon) for _ in range(ATTEMPTS))


def finds_it_by_an_event(instance: Instance, start_daemon: StartDaemon) -> bool:
    """Return True if a daemon that made such a write repairs another process's write because of its event.

    A look that is under way at that moment finds it before.  The daemon makes one when it gets the watch, and then
    one a second; it also waits within a look, for its own threads.
    """
    allow(instance, "max_inotify_watches", 0)
    daemon = start_daemon(CONFIG)
    instance.write("one", b"0")
    wait_until(lambda: text_of(instance, "one").startswith("enabled"), what="enabled without any event")
    allow(instance, "max_inotify_watches", 1)  # enough to watch the instance, and nothing else
    wait_until(lambda: watches(daemon) == 1, what="a watch")
    wait_until(lambda: waits(daemon), what="the end of the look that the watch came with, which would find it")
    with daemon.stopped():  # so that all events are read at once
        instance.write("one", b"0")
    wait_until(lambda: text_of(instance, "one").startswith("enabled"), what="enabled again")
    assert daemon.terminate() == 0
    by_an_event = "one disabled by another process"  # polling cannot find that
    return any(by_an_event in line["summary"] for line in daemon.logs("repaired"))


def watches(daemon: Daemon) -> int:
    found = 0
    for path in Path(f"/proc/{daemon.pid}/fdinfo").iterdir():
        with suppress(FileNotFoundError):  # it was closed meanwhile
            found += path.read_text().count("inotify wd:")
    return found


def test_used_up_while_it_runs(instance: Instance, start_daemon: StartDaemon) -> None:
    """A newly mounted instance that cannot be watched is polled, and the state is degraded."""
    daemon = start_daemon(CONFIG)
    allow(instance, "max_inotify_watches", 0)
    again = f"umount {MOUNT_POINT} && mount -t binfmt_misc binfmt_misc {MOUNT_POINT}"
    wait_until(lambda: instance.shell(again).returncode == 0, what="another instance; it is busy during a look")
    wait_until(lambda: "one" in instance.names(), what="registered in the new one")
    daemon.wait_status(lambda status: status["state"] == "degraded")
    instance.remove("one")
    wait_until(lambda: "one" in instance.names(), what="a repair without any event")
    allow(instance, "max_inotify_watches", PLENTY)
    daemon.wait_converged()


def test_others_mount_meanwhile(instance: Instance, start_daemon: StartDaemon) -> None:
    """A process that mounts something every half second does not keep the daemon from reading entries again."""
    allow(instance, "max_inotify_instances", 0)
    daemon = start_daemon(CONFIG)
    daemon.wait_status(lambda status: status["state"] == "degraded")
    script = "mount -t tmpfs t /mnt; while :; do mount -o remount,rw /mnt; sleep 0.5; done"
    instance.popen(["sh", "-euc", script])
    wait_until(lambda: " /mnt " in instance.shell("cat /proc/self/mountinfo").stdout, what="the first mount")
    instance.write("one", b"0")
    wait_until(lambda: text_of(instance, "one").startswith("enabled"), what="enabled without any event")


def test_looking_is_cheap(instance: Instance, start_daemon: StartDaemon, times: Times) -> None:
    """Polling takes a twentieth of a core at most, also with many foreign entries."""
    for number in range(times(20_000)):
        instance.register(b":foreign-%d:M::foreign-%d::/usr/bin/true:" % (number, number))
    allow(instance, "max_inotify_instances", 0)
    daemon = start_daemon(CONFIG, ("--log-level", "debug"), ready=False)
    daemon.wait_ready(deadline_seconds=30)
    daemon.wait_for_log("modules_loaded", 30)  # that takes CPU time, too, and begins when it is ready

    def repaired() -> None:
        instance.remove("one")
        wait_until(lambda: "one" in instance.names(), 60, "a repair without any event")

    repaired()  # and so the next one comes after a whole interval
    began, used = time.monotonic(), cpu_seconds(daemon)
    for _ in range(2):
        repaired()
    time.sleep(2 * (SLOWNESS - 1))  # on a slow machine the two repairs take a larger part of the time
    share = (cpu_seconds(daemon) - used) / (time.monotonic() - began)
    print(f"{times(20_000)} foreign entries: {share:.1%} of a core")
    assert share < 0.1  # with room for the repairs, and for the work that this test causes
