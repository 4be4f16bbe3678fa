"""A host of a test's own for Docker or Kubernetes, with a private instance of binfmt_misc in the place of this host's.

It consists of a user, mount, process, control group and network namespace.  Some directories are overlays, and all
other files are read-only, but for those named ``writable``.  So nothing of this machine is touched, and all but the
writable directories ends with the host.

What runs there is in a user namespace, which binfmtd detects; ``FIRST_NAMESPACE`` in support/containers.py hides that.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from support import Closing
from support.cli import Result, run
from support.containers import CGROUPS, WAIT, removed
from support.instance import MOUNT_POINT, USERS, Instance
from support.waiting import wait_until

RUN_SECONDS = 900
# The first argument is the host's directory, the second says if binfmt_misc is mounted; the rest has to be writable.
HOLDER = f"""
set -e
host=$1 mounted=$2 python=$3 wait=$4
shift 4
for directory in etc var/lib var/log; do
    mkdir -p "$host/$directory" "$host/work/$directory"
    layers="lowerdir=/$directory,upperdir=$host/$directory,workdir=$host/work/$directory"
    mount -t overlay -o "userxattr,$layers" overlay "/$directory"
done
for directory in /run /var/tmp /var/cache; do mount -t tmpfs -o mode=1777 tmpfs "$directory"; done
%(cgroups)s
for directory in "$host" "$@"; do mount --bind "$directory" "$directory"; done
mount -o remount,bind,ro /
ip link set lo up
[ $mounted = bare ] || mount -t binfmt_misc binfmt_misc {MOUNT_POINT}
exec "$python" -c "$wait"
"""
UNIFIED = f"mount -t cgroup2 none {CGROUPS}"
HIERARCHIES = f"""
mount -t tmpfs tmpfs {CGROUPS}
for controller in cpu cpuacct cpuset memory devices freezer blkio pids; do
    mkdir {CGROUPS}/$controller
    mount -t cgroup -o $controller none {CGROUPS}/$controller
done
mkdir {CGROUPS}/systemd
mount -t cgroup -o none,name=systemd none {CGROUPS}/systemd
"""
UNSHARE = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--cgroup", "--net")


class PrivateHost(Closing):
    """One host, from its start to ``close``; ``directory`` has its files and logs.

    With ``mounted=False`` it has binfmt_misc mounted nowhere.
    """

    cgroups = UNIFIED  # the commands that mount the control groups
    users = USERS  # how many users and groups it has
    groups: Sequence[tuple[str, str]] = ()  # mount and name of those that are created there, and removed at the end

    def __init__(self, directory: Path, writable: Sequence[Path], *, mounted: bool) -> None:
        self.directory = directory
        (directory / "tmp").mkdir(parents=True)
        self.instance = Instance(everybody=True, users=self.users)
        try:
            if not mounted:
                assert self.instance.run(["umount", MOUNT_POINT]).returncode == 0
            arguments = [str(directory), "mounted" if mounted else "bare", sys.executable, WAIT, *map(str, writable)]
            pipe = subprocess.PIPE
            command = [*UNSHARE, "sh", "-c", HOLDER % {"cgroups": self.cgroups}, "sh", *arguments]
            self._holder = self.instance.popen(command, stdin=pipe, stdout=pipe, text=True)
            assert self._holder.stdout is not None
            assert self._holder.stdout.readline() == "ready\n", "the private host did not start: see above"
            mounts = {mount: str(self.root) + os.path.join(CGROUPS, mount) for mount, _ in self.groups}
            self._mounts = {mount: os.open(path, os.O_RDONLY | os.O_DIRECTORY) for mount, path in mounts.items()}
        except BaseException:
            self.instance.close()
            raise

    def close(self) -> None:
        """End everything: the kernel kills the processes, and drops mounts and entries."""
        self._holder.kill()  # --kill-child: and with it process 1
        self._holder.wait(60)
        self.instance.close()
        for mount, name in self.groups:
            wait_until(partial(removed, name, self._mounts[mount]), what=f"the control groups {name} empty")
        for descriptor in self._mounts.values():
            os.close(descriptor)

    @property
    def pid(self) -> int:
        """The process that has the host's namespaces, as seen from outside."""
        return self._holder.pid

    @property
    def runs(self) -> bool:
        """True until ``close``."""
        return self._holder.poll() is None

    @property
    def root(self) -> Path:
        """The host's root directory, as seen from outside."""
        return Path(f"/proc/{self.pid}/root")

    def entering(self, argv: Sequence[str], directory: Path | None = None) -> list[str]:
        """Return the command that executes ``argv`` on the host, as root, in this directory."""
        enter = ["nsenter", "-U", "--preserve-credentials", "-m", "-n", "-C"]
        enter += [f"--pid=/proc/{self.pid}/ns/pid_for_children", "-t", str(self.pid), "--"]
        settings = {
            "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin",
            "HOME": str(self.directory),
            "TMPDIR": str(self.directory / "tmp"),
        }
        variables = [f"{name}={value}" for name, value in settings.items()]
        return [*enter, "env", "-i", f"--chdir={directory or '/'}", *variables, *argv]

    def run(self, *argv: str, directory: Path | None = None) -> Result:
        """Run a command on the host to its end."""
        return run(self.entering(argv, directory), timeout=RUN_SECONDS)

    def start_logged(self, name: str, argv: Sequence[str], prefix: Sequence[str] = ()) -> subprocess.Popen[Any]:
        """Start a program on the host, which logs to NAME.log in its directory; ``prefix`` precedes the command."""
        with (self.directory / f"{name}.log").open("ab") as log:
            return subprocess.Popen([*prefix, *self.entering(argv)], stdout=log, stderr=log)

    @contextmanager
    def registry(self) -> Iterator[None]:
        """Run Debian's docker-registry at localhost:5000 of the host."""
        config = self.directory / "registry.yml"
        storage = {"filesystem": {"rootdirectory": str(self.directory / "registry")}}
        config.write_text(json.dumps({"version": 0.1, "storage": storage, "http": {"addr": "localhost:5000"}}))
        server = self.start_logged("registry", ["docker-registry", "serve", str(config)])
        try:
            probe = "exec 3<>/dev/tcp/localhost/5000"
            wait_until(lambda: self.run("bash", "-c", probe).status == 0, 30, "the registry")
            yield
        finally:
            self.run("pkill", "docker-registry")
            server.wait(60)

    @contextmanager
    def executing(self, archive: Path) -> Iterator["Executing"]:
        """Execute programs of a foreign root without a pause; each has to succeed, and some have to run."""
        tree = self.directory / "foreign"
        tree.mkdir(exist_ok=True)
        subprocess.run(["tar", "-C", str(tree), "-xf", str(archive)], check=True)
        running = Executing(self, tree)
        try:
            running.wait_for_more()
            yield running
            running.wait_for_more()
        finally:
            running.end()


class Executing:
    """A foreign shell that executes another foreign program again and again, and ends with the first that fails."""

    _LOOP = "i=0; while /bin/true; do i=$((i + 1)); echo $i >/count; done; echo /bin/true failed after $i"

    def __init__(self, host: PrivateHost, tree: Path) -> None:
        self._count = tree / "count"
        self._count.write_text("0")
        pipe = subprocess.PIPE
        # nsenter is the parent: what it has started ends with it.
        command = host.entering(["setpriv", "--pdeathsig=KILL", "chroot", str(tree), "/bin/sh", "-c", self._LOOP])
        self._process = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True)

    def wait_for_more(self) -> None:
        """Wait for 100 more executions; AssertionError if one has failed."""
        first = self._number()

        def more() -> bool:
            assert self._process.poll() is None, self._process.communicate()
            return self._number() >= first + 100

        wait_until(more, 60, "100 executions")

    def _number(self) -> int:
        # Empty for a moment: the shell truncates the file before it writes.
        return int(wait_until(lambda: self._count.read_text().strip(), 60, "a count"))

    def end(self) -> None:
        """End the shell."""
        self._process.kill()
        self._process.communicate()
