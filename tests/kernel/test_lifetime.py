"""How long the entries of a container last, and which mount or module it needs for them.

A "container" is a mount namespace that ends with the command in it. It has its own process namespace unless it has
``--pid=host``. The "host" is the namespace around it, whose process 1 goes on. Both are in a private user namespace.
"""

import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.cli import Result, run
from support.instance import MOUNT_POINT, Instance
from support.programs import install

CONFIG = r"""
architectures = []
[handlers.one]
magic = '\x00one'
interpreter = "/usr/bin/qemu-arm"
flags = "F"
"""
HOST = ("unshare", "-Urm", "--propagation", "private", "--pid", "--fork", "--mount-proc")
CONTAINER = "unshare -m --pid --fork --mount-proc"
CONTAINER_WITH_PID_HOST = "unshare -m"
MOUNT = f"mount -t binfmt_misc binfmt_misc {MOUNT_POINT}"
APPLY = "binfmtd apply --own-instance --mount /mnt/m"
IN_CONTAINER = f"""
mount -t tmpfs tmpfs /mnt && mkdir /mnt/m
{APPLY}
echo status $?
ls -A /mnt/m
"""

Shell = Callable[[str], Result]


@pytest.fixture
def host(instance: Instance, tmp_path: Path) -> Shell:
    """Return a function that runs a script on a "host" without binfmt_misc.

    ``container`` and ``binfmtd`` are commands there.
    """
    (tmp_path / "binfmtd.toml").write_text(CONFIG)
    install(tmp_path / "container", f"#!/bin/sh{IN_CONTAINER}".encode())
    options = f"--state-dir {tmp_path}/state --config {tmp_path}/binfmtd.toml"
    command = f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m binfmtd "$@" {options}\n'
    install(tmp_path / "binfmtd", command.encode())

    def shell(script: str) -> Result:
        setup = f"PATH={tmp_path}:$PATH"
        # Process 1 is one shell, and the script runs in another: so no child of process 1 mounts.
        return run(instance.entering([*HOST, "sh", "-c", f"{setup}; (sh -c {shlex.quote(script)}); exit $?"]))

    return shell


def container(kind: str = CONTAINER) -> str:
    """Return the command that starts a container."""
    return f"{kind} container"


def test_it_would_vanish(host: Shell) -> None:
    """Without another mount of the instance nothing is registered: status 1, the remedies, and no mount is left."""
    result = host(container())
    assert result.stdout == "status 1\n"
    assert "nothing was registered" in result.message
    assert "all entries would vanish when" in result.message
    assert "binfmtd run" in result.message


def test_the_host_holds_it(host: Shell) -> None:
    """If the host has the instance mounted, entries outlast the container, and the trial leaves no trace."""
    result = host(f"{MOUNT}; {container()}; echo host; ls -A {MOUNT_POINT}")
    assert result.stderr == ""
    assert result.stdout.splitlines()[-9:] == [
        "registered  one    missing  no entry had this name",
        "status 0",
        *("one", "register", "status"),
        "host",
        *("one", "register", "status"),
    ]


def test_what_reaches_the_host_stays_there(host: Shell) -> None:
    """A mount that a container makes in a directory shared with the host, as a pod does, outlasts the container."""
    bind = f"mount --rbind {MOUNT_POINT} /srv && mount -t proc proc /proc"
    apply = "binfmtd apply --own-instance --mount /srv; echo status \\$?"
    bound = f'unshare -m --propagation unchanged --pid --fork sh -c "{bind}; {apply}"'
    share = f"mount --bind {MOUNT_POINT} {MOUNT_POINT} && mount --make-shared {MOUNT_POINT}"
    result = host(f"{share} && {bound}; ls -A {MOUNT_POINT}")
    assert result.stderr == ""
    assert result.stdout.splitlines()[-4:] == ["status 0", "one", "register", "status"]


def test_what_reaches_the_host_by_a_directory_above_stays_there(host: Shell) -> None:
    """A mount made below a shared directory of the host outlasts the container, too."""
    share = "mount --bind /proc/sys/fs /proc/sys/fs && mount --make-shared /proc/sys/fs"
    bind = "mount --rbind /proc/sys/fs /srv && mount -t proc proc /proc"
    apply = "binfmtd apply --own-instance --mount /srv/binfmt_misc; echo status \\$?"
    bound = f'unshare -m --propagation unchanged --pid --fork sh -c "{bind}; {apply}"'
    result = host(f"{share} && {bound}; ls -A {MOUNT_POINT}")
    assert result.stderr == ""
    assert result.stdout.startswith("mounted binfmt_misc at /srv/binfmt_misc\n")
    assert result.stdout.splitlines()[-4:] == ["status 0", "one", "register", "status"]


def test_a_mount_that_holds_it(host: Shell) -> None:
    """With ``--hold`` a second mount stays, so an unmount at the usual place removes no entry."""
    result = host(f"""
        mount -t tmpfs tmpfs /mnt
        {MOUNT}
        binfmtd apply --own-instance --hold /mnt/held/here
        binfmtd apply --own-instance --hold /mnt/held/here
        umount {MOUNT_POINT}
        {MOUNT}
        ls -A {MOUNT_POINT}
    """)
    assert result.stderr == ""
    mounted, *_, again, one, _, _ = result.stdout.splitlines()
    assert (mounted, again, one) == (
        "mounted binfmt_misc at /mnt/held/here",
        "nothing to do: 1 handler registered",
        "one",
    )


def test_with_pid_host_the_hosts_own_mount_is_made(host: Shell) -> None:
    """With ``--pid=host`` the missing mount is made on the host, and entries outlast the container."""
    result = host(f"{container(CONTAINER_WITH_PID_HOST)}; echo host; ls -A {MOUNT_POINT}")
    assert result.stderr == ""
    assert "status 0" in result.stdout
    assert result.stdout.endswith("host\none\nregister\nstatus\n")


def test_with_pid_host_why_it_cannot_be_mounted_there(host: Shell) -> None:
    """If another file system covers the host's path, that is the reason, and nothing is registered."""
    result = host(f"mount -t tmpfs t {MOUNT_POINT}; {container(CONTAINER_WITH_PID_HOST)}; ls -A {MOUNT_POINT}")
    assert result.stdout == "status 1\n"
    assert "nothing was registered" in result.message
    assert "--pid=host" not in result.message  # which was given


def test_a_shell_in_between(host: Shell) -> None:
    """A container with an init and a shell (`docker run --init IMAGE sh -c ...`) registers nothing either."""
    result = host(f"{CONTAINER} sh -c '(sh -c container); :'; ls -A {MOUNT_POINT}")
    assert result.stdout == "status 1\n"
    assert "nothing was registered" in result.message


@pytest.mark.usefixtures("host")  # which makes the command
def test_what_is_mounted_where_others_go_on_stays(instance: Instance, tmp_path: Path) -> None:
    """A process in a container that goes on (`docker exec`) may rely on the container's mount, without a trial."""
    # The container's process 1 waits; our command enters beside it, and is none of its children.
    started = instance.popen([*HOST, "sh", "-c", "echo; read _"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert started.stdin is not None
    assert started.stdout is not None
    assert started.stdout.readline() == b"\n"
    (child,) = Path(f"/proc/{started.pid}/task/{started.pid}/children").read_text().split()
    command = [str(tmp_path / "binfmtd"), "apply", "--own-instance"]
    result = run(["nsenter", "-U", "--preserve-credentials", "-m", "-p", "-t", child, "--", *command])
    assert (result.status, result.stderr) == (0, "")
    assert "one" in os.listdir(f"/proc/{child}/root{MOUNT_POINT}")
    started.stdin.close()  # lets it end


def test_trials_that_were_killed(host: Shell) -> None:
    """An entry that a killed trial left disturbs no other trial, and is removed; that of a running trial stays."""
    entries = f"(cd {MOUNT_POINT} && ls -A | grep trial)"
    register = f'echo ":.binfmtd-trial~%s-0:E::binfmtd-trial::/nonexistent:" > {MOUNT_POINT}/register'
    now = "$(cut -d. -f1 /proc/uptime)"
    result = host(f"{MOUNT}; {register % 1}; {register % now}; {container()}; {entries}")
    assert result.stderr == ""
    assert "status 0" in result.stdout
    assert result.stdout.splitlines()[-1].startswith(".binfmtd-trial~")
    assert result.stdout.count("trial~1-0") == 0


def test_pid_host_obeys_the_options(host: Shell, tmp_path: Path) -> None:
    """Without --own-instance nothing is mounted on the host of a user namespace."""
    (tmp_path / "container").write_text(f"#!/bin/sh{IN_CONTAINER.replace(' --own-instance', '')}")
    result = host(f"{container(CONTAINER_WITH_PID_HOST)}; ls -A {MOUNT_POINT}")
    assert result.stdout == "status 1\n"
    assert result.message.endswith("--own-instance")


def test_with_pid_host_the_hosts_binfmt_d_is_written(host: Shell) -> None:
    """With ``--pid=host`` `--persistent` writes to, and removes from, process 1's root, without a bind mount."""
    apply = f"{APPLY.replace('/mnt/m', MOUNT_POINT)} --persistent --arch"
    cover = "mount -t tmpfs -o mode=755 t /etc/binfmt.d && mount -t tmpfs -o mode=755 t /var/lib && "
    listing = "(cd / && find etc/binfmt.d var/lib -type f)"
    in_container = f"unshare -m sh -c 'umount /etc/binfmt.d /var/lib; {apply} arm64'; {listing}"
    taken_back = f"unshare -m sh -c 'umount /etc/binfmt.d /var/lib; {apply} none'; {listing}"
    result = host(f"mkdir -p /etc/binfmt.d; {cover} {{ {in_container}; echo taken back; {taken_back}; }}")
    assert result.stderr == ""
    before, _, after = result.stdout.partition("taken back\n")
    assert "\nafter a reboot, the handlers come back through /etc/binfmt.d/binfmtd.conf on the host\n" in before
    assert sorted(before.splitlines()[-3:]) == [
        "etc/binfmt.d/binfmtd.conf",
        "var/lib/binfmtd/boot/usr/bin/qemu-aarch64",
        "var/lib/binfmtd/boot/usr/bin/qemu-arm",  # of the config's handler
    ]
    assert after.startswith("removed /etc/binfmt.d/binfmtd.conf on the host and its copies of emulators\n")
    assert "var/lib/binfmtd/boot" not in after


def test_an_own_instance_only_on_purpose(host: Shell) -> None:
    """In a user namespace nothing is mounted without the option, which the error names, with the consequences."""
    result = host(f"binfmtd apply; echo status $?; ls -A {MOUNT_POINT}")
    assert result.stdout == "status 1\n"
    assert "this is a user namespace, where mounting an instance would hide the host's handlers" in result.message
    assert result.message.endswith("--own-instance")


def test_the_daemon_holds_it_itself(host: Shell) -> None:
    """`run --own-instance` mounts, and serves as long as it runs, although no other process has it mounted."""
    ready = f"until test -e {MOUNT_POINT}/one; do sleep 0.01; done"
    result = host(f"timeout 20 binfmtd run --own-instance & {ready}; ls {MOUNT_POINT}; kill %1; wait %1; echo $?")
    assert result.stdout == "one\nregister\nstatus\n0\n"


# The kernel's module


@pytest.fixture
def without_module(instance: Instance, tmp_path: Path) -> Callable[[str, str], Result]:
    """Return a function that runs `apply` where /proc/filesystems lacks binfmt_misc; ``modprobe`` is its script."""
    (tmp_path / "binfmtd.toml").write_text(CONFIG)
    (tmp_path / "filesystems").write_text("nodev\tproc\n\text4\n")

    def shell(modprobe: str, options: str) -> Result:
        (tmp_path / "sbin").mkdir(exist_ok=True)
        if modprobe:
            install(tmp_path / "sbin/modprobe", f"#!/bin/sh\n{modprobe}\n".encode())
        command = f"{shlex.quote(sys.executable)} -m binfmtd apply --own-instance --mount /mnt/m {options}"
        script = f"""
            mount -t tmpfs tmpfs /mnt; mkdir /mnt/m
            mount --bind {tmp_path}/sbin /usr/sbin
            mount --bind {tmp_path}/filesystems /proc/filesystems
            {command} --state-dir {tmp_path}/state --config {tmp_path}/binfmtd.toml
            echo status $?
        """
        return run(instance.entering(["unshare", "-m", "sh", "-c", script]))

    return shell


LOADS = 'test "$*" = binfmt_misc && umount /proc/filesystems'


def test_the_module_is_loaded(without_module: Callable[[str, str], Result]) -> None:
    """If the kernel lacks the file system, modprobe is called, and binfmt_misc is mounted afterwards."""
    result = without_module(LOADS, "")
    assert result.stderr == ""
    assert result.stdout.endswith("status 0\n")


def test_no_autoload(without_module: Callable[[str, str], Result]) -> None:
    """With --no-autoload no module is loaded, and the error has the command."""
    result = without_module(LOADS, "--no-autoload")
    assert result.stdout == "status 1\n"
    assert result.message == (
        "this kernel has no binfmt_misc, and --no-autoload was given: load the module with `modprobe binfmt_misc` on "
        "the host"
    )


@pytest.mark.parametrize(
    ("modprobe", "reason"),
    [
        ("", "modprobe is not installed here"),
        ("echo 'modprobe: FATAL: Module binfmt_misc not found.' >&2; exit 1", "FATAL: Module binfmt_misc not found."),
        ("exit 3", "exited with status 3"),
    ],
)
def test_the_module_cannot_be_loaded(without_module: Callable[[str, str], Result], modprobe: str, reason: str) -> None:
    """If the module cannot be loaded, the error has the reason, and the command for the host."""
    result = without_module(modprobe, "")
    assert result.stdout == "status 1\n"
    assert reason in result.message
    assert result.message.endswith("load the module with `modprobe binfmt_misc` on the host")
