"""`sealed = true`: between the daemon's own writes the superblock is read-only, so no program can change entries."""

import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from support.cli import Cli, run
from support.daemon import Daemon, StartDaemon
from support.instance import MOUNT_POINT, Instance
from support.programs import install
from support.waiting import SLOWNESS, wait_until

from binfmtd.kernel.seal import UNSEEN
from binfmtd.model.stand_in import stand_in_name

HANDLER = r"""
[handlers.one]
magic = '\x00one'
interpreter = "/usr/bin/true"
"""
CONFIG = "architectures = []" + HANDLER
SEALED = "sealed = true\n" + CONFIG
USAGE, DRIFT = 2, 3
WITHOUT = ("setpriv", "--inh-caps=-sys_admin", "--bounding-set=-sys_admin")


def read_only(instance: Instance) -> bool:
    return bool(os.statvfs(instance.directory).f_flag & os.ST_RDONLY)


def registered(instance: Instance, name: str) -> bool:
    return name in instance.names()


def remount(instance: Instance, how: str, *, elsewhere: bool = False) -> None:
    private = "unshare -m --propagation private " if elsewhere else ""
    result = instance.shell(f"{private}mount -o remount,{how} {MOUNT_POINT}")
    assert result.returncode == 0, result.stderr


def seal_is(daemon: Daemon, state: str) -> dict[str, str]:
    found: dict[str, str] = daemon.wait_status(lambda s: s["seal"]["state"] == state, f"seal {state}")["seal"]
    return found


def unsealed_by(daemon: Daemon, reason: str) -> None:
    """Wait until the status names the process; before that, it has the fact alone."""
    daemon.wait_status(lambda s: s["seal"] == {"state": "unsealed", "reason": reason}, reason)


def test_no_program_can_write(instance: Instance, start_daemon: StartDaemon) -> None:
    """From READY=1 on no program can change entries through any mount; programs run, and no repair is needed."""
    daemon = start_daemon(SEALED)
    inodes = instance.all_inodes()
    assert seal_is(daemon, "sealed") == {"state": "sealed", "reason": ""}
    for name, data in (
        ("one", b"-1"),
        ("one", b"0"),
        ("status", b"-1"),
        ("status", b"0"),
        ("register", b":a:E::a::/b:"),
    ):
        with pytest.raises(OSError, match="Read-only"):
            instance.write(name, data)
    assert instance.shell("mount -t tmpfs t /mnt && mkdir /mnt/b && mount -t binfmt_misc b /mnt/b").returncode == 0
    assert instance.shell("echo -1 > /mnt/b/status").returncode != 0
    assert instance.all_inodes() == inodes
    assert daemon.status()["state"] == "converged"
    assert daemon.status()["repairs"] == 0


def test_the_daemon_writes(instance: Instance, start_daemon: StartDaemon) -> None:
    """A reload registers and removes entries of a sealed instance, which is sealed before and afterwards."""
    daemon = start_daemon(SEALED)
    daemon.config.write_text(SEALED + HANDLER.replace("one", "two"))
    daemon.reload()
    wait_until(lambda: "two" in instance.names(), what="the new handler")
    daemon.wait_converged()
    assert read_only(instance)
    assert seal_is(daemon, "sealed")


def test_the_last_unmount_loses_nothing(instance: Instance, start_daemon: StartDaemon, tmp_path: Path) -> None:
    """After the last unmount no entry is lost: the daemon holds the instance, and mounts it again."""
    assert instance.shell("mount -t tmpfs t /mnt && mkdir /mnt/b && mount -t binfmt_misc b /mnt/b").returncode == 0
    start_daemon(SEALED, ("--mount", "/mnt/b", "--own-instance"))
    program = install(tmp_path / "program", b"\0one")
    inodes = instance.all_inodes()
    assert instance.shell(f"umount {MOUNT_POINT}").returncode == 0
    # The mount table has changed, so the daemon reads the other mount for a moment, which is busy then.
    wait_until(lambda: instance.shell("umount /mnt/b").returncode == 0, what="the last unmount")
    assert instance.run([str(program)]).returncode == 0
    instance.directory = Path(f"/proc/{instance.pid}/root/mnt/b")
    wait_until(lambda: instance.all_inodes() == inodes, what="the instance mounted again")
    assert read_only(instance)


@pytest.mark.parametrize("elsewhere", [False, True])
def test_remounted_writable(instance: Instance, start_daemon: StartDaemon, elsewhere: bool) -> None:
    """If another program unseals the instance and changes an entry, that is repaired, reported, and sealed again."""
    daemon = start_daemon(SEALED)
    remount(instance, "rw", elsewhere=elsewhere)
    if elsewhere:  # no event reports the remount: the first write does
        wait_until(lambda: not read_only(instance) or daemon.logs("unsealed"), what="the remount")
        try:
            instance.remove("one")
        except OSError:  # the check that is made every ten seconds came first
            assert daemon.logs("unsealed")
    daemon.wait_for_log("unsealed", level="warning")
    wait_until(lambda: read_only(instance), what="the seal")
    wait_until(lambda: set(instance.all_names()) == {"one", stand_in_name("one")}, what="both entries")
    assert seal_is(daemon, "sealed")
    daemon.wait_converged()


def test_a_writer_that_stays_open(instance: Instance, start_daemon: StartDaemon, cli: Cli) -> None:
    """While a process has a file open for writing, the status names it, and drift is repaired; then it is sealed."""
    remount(instance, "rw")
    register = os.open(instance.path("register"), os.O_WRONLY)
    writer = instance.popen(["cat"], stdin=subprocess.PIPE, stdout=register)
    os.close(register)
    daemon = start_daemon(SEALED)
    reason = f"process {writer.pid} (cat) has register open"
    unsealed_by(daemon, reason)
    instance.remove("one")
    wait_until(lambda: "one" in instance.names(), what="the repair")
    assert not read_only(instance)
    cli.state_directory = daemon.state_directory
    assert f"seal:      unsealed: {reason}" in cli("status").stdout
    writer.communicate()
    seal_is(daemon, "sealed")
    assert read_only(instance)
    assert [line["reason"] for line in daemon.logs("unsealed")] == [reason]


def test_a_writer_that_the_daemon_may_not_look_at(instance: Instance, start_daemon: StartDaemon) -> None:
    """A writer that the daemon may not examine is reported as such.

    Here it is outside of the daemon's user namespace; on a host it is a process with more capabilities than the unit
    has.
    """
    remount(instance, "rw")
    with open(os.open(instance.path("register"), os.O_WRONLY), "wb"):
        daemon = start_daemon(SEALED)
        unsealed_by(daemon, UNSEEN)
    seal_is(daemon, "sealed")


def test_pause_opens_it(instance: Instance, start_daemon: StartDaemon, cli: Cli) -> None:
    """Any pause unseals the instance before `pause` returns; `resume` repairs and seals."""
    daemon = start_daemon(SEALED)
    cli.state_directory = daemon.state_directory
    assert "every program can change entries" in cli("pause", "one").stdout
    assert not read_only(instance)
    assert daemon.status()["seal"]["state"] == "paused"
    assert "seal:      paused: every program can change entries" in cli("status").stdout
    instance.remove("one")
    assert cli("resume").status == 0
    seal_is(daemon, "sealed")
    assert read_only(instance)
    wait_until(lambda: "one" in instance.names(), what="the repair")


def test_a_pause_of_the_seal_alone(instance: Instance, start_daemon: StartDaemon, cli: Cli) -> None:
    """With `pause --seal` other programs may write, and the daemon goes on repairing, until `resume --seal`."""
    daemon = start_daemon(SEALED)
    cli.state_directory = daemon.state_directory
    assert cli("pause", "--seal").stdout.startswith("paused until `binfmtd resume`: the seal\n")
    instance.register(b":theirs:M::theirs::/usr/bin/true:")
    instance.remove("one")
    wait_until(lambda: "one" in instance.names(), what="the repair")
    assert not read_only(instance)
    assert "paused:    the seal until `binfmtd resume`" in cli("status").stdout
    assert cli("pause", "--seal", "one").status == cli("resume", "--seal", "one").status == USAGE
    assert cli("resume", "--seal").stdout == "resumed: the seal\n"
    seal_is(daemon, "sealed")
    assert read_only(instance)
    assert "theirs" in instance.names()


def test_a_pause_after_a_sealing_daemon_was_killed(start_daemon: StartDaemon, cli: Cli) -> None:
    """binfmt_misc stays sealed: the message has the command that opens it, and the status is 1."""
    daemon = start_daemon(SEALED)
    cli.state_directory = daemon.state_directory
    seal_is(daemon, "sealed")
    daemon.kill()
    for arguments in (("pause",), ("pause", "--seal")):
        result = cli(*arguments)
        assert result.status == 1
        assert "no daemon runs" in result.messages[0]
        assert "run `mount -o remount,rw " in result.messages[1]


def test_there_is_no_seal_to_open(start_daemon: StartDaemon, cli: Cli) -> None:
    """`pause --seal` says so if the config does not ask for a seal."""
    cli.state_directory = start_daemon(CONFIG).state_directory
    assert "there was none to open" in cli("pause", "--seal").stderr


def test_a_pause_that_ends_by_itself(instance: Instance, start_daemon: StartDaemon, cli: Cli) -> None:
    """At the end of a timed pause the instance is sealed."""
    daemon = start_daemon(SEALED)
    cli.state_directory = daemon.state_directory
    assert cli("pause", "--for", "1s").status == 0
    seal_is(daemon, "sealed")
    assert read_only(instance)


@pytest.mark.parametrize("end", ["kill", "terminate"])
def test_it_outlives_the_daemon(instance: Instance, start_daemon: StartDaemon, end: str) -> None:
    """The seal stays after a crash and after a stop; the next daemon writes nevertheless."""
    daemon = start_daemon(SEALED)
    getattr(daemon, end)()
    assert read_only(instance)
    daemon = start_daemon(SEALED.replace("one]", "two]"))
    assert read_only(instance)
    assert set(instance.names()) == {"two"}


@pytest.mark.parametrize("line", ["", "sealed = false\n"])
def test_a_reload_opens_it(instance: Instance, start_daemon: StartDaemon, line: str) -> None:
    daemon = start_daemon(SEALED)
    daemon.config.write_text(line + CONFIG)
    daemon.reload()
    seal_is(daemon, "off")
    assert not read_only(instance)
    daemon.config.write_text(SEALED)
    daemon.reload()
    seal_is(daemon, "sealed")
    assert read_only(instance)


def test_on_stop_remove_opens_it(instance: Instance, start_daemon: StartDaemon) -> None:
    daemon = start_daemon('on_stop = "remove"\n' + SEALED)
    assert daemon.terminate() == 0
    assert instance.all_names() == []
    assert not read_only(instance)
    assert daemon.status()["seal"]["state"] == "off"
    assert [line["reason"] for line in daemon.logs("seal_opened")] == ["the daemon stops"]


# A result of a thread that comes in after the seal was opened for good asks for the seal once more.
LATE = """
from types import SimpleNamespace
from binfmtd.daemon.background import Background
from binfmtd.daemon.repairs.sealing import Sealing
from binfmtd.kernel.mount import find

sealing = Sealing(Background(), SimpleNamespace(seal=lambda status, why_opened: print(status.state)))
sealing.use(find(None), wanted=True, paused=False)
sealing.open_for_good()
sealing.use(find(None), wanted=True, paused=False)
"""


def test_it_stays_open_at_the_end(instance: Instance) -> None:
    """A result that comes in while the daemon ends does not seal the instance whose entries it has removed."""
    assert instance.run([sys.executable, "-c", LATE]).stdout.split() == ["sealed", "off"]
    assert not read_only(instance)


def test_sealed_by_another_process(instance: Instance, start_daemon: StartDaemon, cli: Cli) -> None:
    """Without the key a foreign seal is no problem until a write is needed; then the status has the remedy."""
    start_daemon(CONFIG, directory="before").terminate()
    remount(instance, "ro")
    daemon = start_daemon(CONFIG, directory="before")
    status = daemon.wait_converged()
    assert status["seal"]["state"] == "sealed"
    assert "another process sealed it" in status["seal"]["reason"]
    daemon.config.write_text(CONFIG.replace("/usr/bin/true", "/usr/bin/false"))
    daemon.reload()
    status = daemon.wait_status(lambda s: s["problem"], "the problem")
    problem = status["problem"]
    assert [row["name"] for row in status["handlers"]] == ["one"]
    assert "is sealed" in problem
    assert "`sealed = false`" in problem
    cli.state_directory = daemon.state_directory
    assert "remount it" not in problem
    result = cli("pause", "--seal")
    assert (result.status, result.message) == (1, status["seal"]["reason"])
    assert cli("resume").status == 0
    daemon.config.write_text("sealed = false\n" + CONFIG.replace("/usr/bin/true", "/usr/bin/false"))
    daemon.reload()
    daemon.wait_converged()
    assert not read_only(instance)


def test_a_start_beside_a_seal(instance: Instance, start_daemon: StartDaemon) -> None:
    """A daemon that cannot register a missing handler because of a foreign seal is ready, and degraded."""
    start_daemon(CONFIG).terminate()
    remount(instance, "ro")
    daemon = start_daemon(CONFIG + HANDLER.replace("one", "two"), directory="another")
    status = daemon.wait_status(lambda s: s["problem"], "the problem")
    assert status["state"] == "degraded"
    assert [row["name"] for row in status["handlers"]] == ["one", "two"]
    remount(instance, "rw")
    wait_until(lambda: "two" in instance.names(), 20, "the missing handler")
    daemon.wait_converged(20)


def test_without_the_capability(instance: Instance, start_daemon: StartDaemon, tmp_path: Path, cli: Cli) -> None:
    """Without CAP_SYS_ADMIN there is one clear error, and everything else works."""
    python = install(tmp_path / "python", f'#!/bin/sh\nexec {" ".join(WITHOUT)} {sys.executable} "$@"\n'.encode())
    daemon = start_daemon(SEALED, python=str(python))
    seal = seal_is(daemon, "impossible")
    assert "needs CAP_SYS_ADMIN" in seal["reason"]
    assert daemon.status()["state"] == "converged"
    instance.remove("one")
    wait_until(lambda: "one" in instance.names(), what="the repair")
    assert len(daemon.logs("seal_failed")) == 1
    assert not read_only(instance)
    cli.state_directory = daemon.state_directory
    paused = cli("pause", "one")
    assert (paused.status, paused.message) == (0, seal["reason"])


def test_a_mount_that_is_bound_read_only(instance: Instance, start_daemon: StartDaemon) -> None:
    """With a mount that is bound read-only sealing is impossible, and the status has the reason."""
    assert instance.shell(f"mount --bind {MOUNT_POINT} /mnt && mount -o remount,bind,ro /mnt").returncode == 0
    daemon = start_daemon(SEALED, ("--mount", "/mnt"), ready=False)
    assert "bind binfmt_misc writable" in seal_is(daemon, "impossible")["reason"]
    assert not read_only(instance)


FLUSH_AND_HOLD = """
import os, sys, time
held = os.open(sys.argv[1] + "/register", os.O_WRONLY)
print("held", flush=True)
for line in sys.stdin:
    os.write(os.open(sys.argv[1] + "/status", os.O_WRONLY), b"-1")
"""


def test_a_writer_that_flushes_again_and_again(instance: Instance, start_daemon: StartDaemon) -> None:
    """Repeated flushes by a process with an open file are repaired, and logged once as unsealed; then it is sealed."""
    remount(instance, "rw")
    command = [sys.executable, "-c", FLUSH_AND_HOLD, MOUNT_POINT]
    writer = instance.popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    assert writer.stdout.readline() == "held\n"
    assert writer.stdin is not None
    daemon = start_daemon(SEALED)
    seal_is(daemon, "unsealed")
    for _ in range(20):
        before = instance.inode("one")
        writer.stdin.write("flush\n")
        writer.stdin.flush()
        instance.wait_registered_anew("one", before)
    writer.communicate()
    seal_is(daemon, "sealed")
    assert len(daemon.logs("unsealed", level="warning")) == 1


def test_remounted_read_only_by_an_administrator(instance: Instance, start_daemon: StartDaemon, cli: Cli) -> None:
    """After `mount -o remount,ro`, which changes the mount as well, the daemon makes the mount writable again.

    It reports no trouble, since there is nothing that the administrator should do.
    """
    daemon = start_daemon(SEALED)
    cli.state_directory = daemon.state_directory
    remount(instance, "ro")
    daemon.config.write_text(SEALED + HANDLER.replace("one", "two"))
    wait_until(lambda: not mount_read_only(instance), what="a writable mount")
    daemon.reload()
    wait_until(lambda: "two" in instance.names(), what="the new handler")
    daemon.wait_converged()
    remount(instance, "ro")
    wait_until(lambda: not mount_read_only(instance), what="a writable mount")
    assert cli("pause").status == 0
    instance.remove("two")
    assert not daemon.logs("trouble")


def test_remounted_read_only_at_another_mount(instance: Instance, start_daemon: StartDaemon) -> None:
    """A mount of the instance that the daemon uses since an unmount is made writable again, too."""
    assert instance.shell("mount -t tmpfs t /mnt && mkdir /mnt/b && mount -t binfmt_misc b /mnt/b").returncode == 0
    daemon = start_daemon(SEALED)
    wait_until(lambda: instance.shell(f"umount {MOUNT_POINT}").returncode == 0, what="the unmount")
    instance.directory = Path(f"/proc/{instance.pid}/root/mnt/b")
    daemon.wait_status(lambda s: s["mount"] and s["mount"]["directory"] == "/mnt/b", "the other mount")
    assert instance.shell("mount -o remount,ro /mnt/b").returncode == 0
    daemon.config.write_text(SEALED + HANDLER.replace("one", "two"))
    daemon.reload()
    wait_until(lambda: "two" in instance.names(), what="the new handler")
    assert seal_is(daemon, "sealed")["reason"] == ""


def mount_read_only(instance: Instance) -> bool:
    table = Path(f"/proc/{instance.pid}/mountinfo").read_text()
    lines = [line.split() for line in table.splitlines() if f" {MOUNT_POINT} " in line]
    return lines[-1][5].startswith("ro")


def test_opened_while_it_is_mounted_nowhere(instance: Instance, start_daemon: StartDaemon) -> None:
    """If the instance is mounted nowhere, a reload without `sealed` unseals it through the daemon's own mount."""
    daemon = start_daemon(SEALED)
    assert instance.shell(f"umount {MOUNT_POINT}").returncode == 0
    if not instance.lent:  # else the daemon mounts it again, which it does in no user namespace
        daemon.wait_for_log("trouble")
    daemon.config.write_text(CONFIG)
    daemon.reload()
    seal_is(daemon, "off")


def test_a_daemon_in_a_child_user_namespace(instance: Instance, start_daemon: StartDaemon, tmp_path: Path) -> None:
    """In a child user namespace, which may not seal its parent's instance, this is logged once and not retried."""
    inner = f'#!/bin/sh\nexec unshare --user --map-root-user --mount {sys.executable} "$@"\n'
    daemon = start_daemon(SEALED, python=str(install(tmp_path / "python", inner.encode())), ready=False)
    assert "CAP_SYS_ADMIN" in seal_is(daemon, "impossible")["reason"]
    assert not read_only(instance)
    used = cpu_seconds(daemon.pid)
    seconds = 2 * SLOWNESS
    time.sleep(seconds)  # nothing is to happen
    assert cpu_seconds(daemon.pid) - used < 0.1 * seconds
    assert len(daemon.logs("seal_failed")) == 1


def cpu_seconds(pid: int) -> float:
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def test_two_daemons_that_seal(instance: Instance, start_daemon: StartDaemon) -> None:
    """Each of two daemons writes although the other has sealed the instance."""
    one, two = start_daemon(SEALED), start_daemon(SEALED, directory="two")
    for number, daemon in enumerate((one, two, one, two)):
        name = f"extra-{number}"
        daemon.config.write_text(SEALED + HANDLER.replace("one", name))
        daemon.reload()
        wait_until(partial(registered, instance, name), what=name)
    wait_until(lambda: read_only(instance), what="the seal")


def test_repairs_cost_little_while_it_is_opened_in_a_loop(instance: Instance, start_daemon: StartDaemon) -> None:
    """A program that unseals the instance in a loop is logged once a minute."""
    daemon = start_daemon(SEALED)
    end = time.monotonic() + 2
    while time.monotonic() < end:
        remount(instance, "rw")
    wait_until(lambda: read_only(instance), what="the seal")
    assert len(daemon.logs("unsealed", level="warning")) == 1


# Output of commands with a sealed instance and without a daemon


@pytest.fixture
def sealed_alone(instance: Instance, start_daemon: StartDaemon) -> Instance:
    """Return an instance that a daemon has sealed before its end."""
    start_daemon(SEALED).terminate()
    assert read_only(instance)
    return instance


def test_apply_beside_a_seal(sealed_alone: Instance, cli: Cli) -> None:
    """With a sealed instance `apply` gives 0 if all is as declared, else 1 and the remedy.

    `sealed = false` unseals it; `sealed = true` registers nevertheless.
    """
    done = cli("apply", config=CONFIG)
    assert (done.status, done.stdout) == (0, "nothing to do: 1 handler registered\n")
    two = HANDLER.replace("one", "two")
    done = cli("apply", config=CONFIG + two)
    assert (done.status, done.stdout) == (1, "")
    assert "is sealed" in done.message
    assert "`sealed = false`" in done.message
    assert set(sealed_alone.names()) == {"one"}
    done = cli("apply", config=SEALED + two)
    assert (done.status, set(sealed_alone.names())) == (0, {"one", "two"})
    assert read_only(sealed_alone)
    done = cli("apply", config="sealed = false\n" + CONFIG)
    assert done.status == 0
    assert done.stdout.startswith(f"opened the seal of binfmt_misc at {MOUNT_POINT}\n")
    assert not read_only(sealed_alone)


@pytest.mark.usefixtures("sealed_alone")
def test_apply_that_may_not_open_it(cli: Cli) -> None:
    """Without the capability `apply` names it."""
    cli.config.write_text("sealed = false\n" + CONFIG.replace("/true", "/false"))
    done = run(without_capability(cli.command("apply", "--config", str(cli.config))))
    assert done.status == 1
    assert "needs CAP_SYS_ADMIN" in done.stderr
    assert "is sealed" in done.stderr.splitlines()[-1]


@pytest.mark.usefixtures("sealed_alone")
def test_plan_and_explain_report_the_seal(cli: Cli, tmp_path: Path) -> None:
    """`plan` and `explain` report the seal if an entry has to be registered."""
    assert "sealed" not in cli("plan", config=CONFIG).stderr
    two = CONFIG + HANDLER.replace("one", "two")
    assert "is sealed" in cli("plan", config=two).stderr
    program = install(tmp_path / "program", b"\0two")
    explained = cli("explain", str(program), config=two)
    assert "is sealed" in explained.stdout
    assert "mount -o remount,rw" in explained.stdout
    planned = cli("plan", config="sealed = false\n" + CONFIG)
    assert planned.status == DRIFT
    assert "`binfmtd apply` would open it" in planned.message
    cli("apply", config="sealed = false\n" + CONFIG)
    assert cli("plan", config="sealed = false\n" + CONFIG).status == 0
    assert "sealed" not in cli("explain", str(program), config=two).stdout


def test_check(cli: Cli) -> None:
    """Root without the capability gets an error and status 78; otherwise there is no message."""
    assert cli("check", config=SEALED).stderr == ""
    done = run(without_capability(cli.command("check", "--config", str(cli.config))))
    assert done.status == 78
    assert done.stderr.startswith("binfmtd: sealed = true: that needs CAP_SYS_ADMIN")


def without_capability(command: list[str]) -> list[str]:
    place = command.index("env")
    return [*command[:place], *WITHOUT, *command[place:]]
