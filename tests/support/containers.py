"""A machine to run containers on: podman with a private instance of binfmt_misc, in the place of a host's.

To ``support.instance`` it adds a process namespace and a mount namespace.  podman writes to tmpfs only, and the other
files are read-only there, so all that containers change ends with the machine.  ``podman run --privileged`` shares the
instance with the machine, as it shares the host's on a host.  Never bind the root directory in (``-v /:/host``): a
runtime makes it writable again.

The containers are in a user namespace, which binfmtd detects; ``as_first_namespace`` hides that.
"""

import errno
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from support import Closing
from support.cli import Result, run
from support.instance import MOUNT_POINT, Instance
from support.programs import install
from support.waiting import wait_until

RUN_SECONDS = 120
CGROUPS = "/sys/fs/cgroup"
# Process 1 inherits the processes that podman leaves behind; with SIGCHLD ignored the kernel reaps them.  (dash's
# `read` would end with the first one.)
WAIT = """
import signal, sys
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
print("ready", flush=True)
sys.stdin.read()
"""
HOLDER = f"""
set -e
for directory in /run /dev/shm /var/cache /var/tmp "$1/storage"; do mount -t tmpfs tmpfs "$directory"; done
mount -t "$2" none {CGROUPS}
mount --bind "$1" "$1"
mount -o remount,bind,ro /
[ "$3" = bare ] || mount -t binfmt_misc binfmt_misc {MOUNT_POINT}
exec "$4" -c "$5"
"""
CONTAINERS_CONF = """
[containers]
cgroups = "{cgroups}"
default_ulimits = ["nproc={nproc}:{nproc}", "nofile={nofile}:{nofile}"]
netns = "none"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "none"
runtime = "{runtime}"
"""
STORAGE_CONF = """
[storage]
driver = "overlay"
graphroot = "{directory}/storage"
runroot = "/run/containers/storage"
[storage.options]
additionalimagestores = ["{images}"]
"""
# With it a line of the documentation runs unchanged.
DOCKER = """#!/bin/sh
command=$1
shift
[ "$command" != run ] || set -- {first_namespace} "$@"
exec podman "$command" "$@"
"""
# Of the base that support.images makes.
SITE_PACKAGES = "/opt/binfmtd/lib/python3.13/site-packages"
FIRST_NAMESPACE = """\
import os, binfmtd.files.environment; binfmtd.files.environment._INITIAL_USER = os.readlink("/proc/self/ns/user")
"""


class Machine(Closing):
    """One machine, from its start to ``close``; ``directory`` is the writable part of its files.

    With ``mounted=False`` only the containers mount the instance.  There are no control groups, as they would be those
    of the real machine.  ``cgroups=True`` makes some, and removes them at the end: podman requires them for a container
    without its own process namespace.
    """

    def __init__(
        self, directory: Path, images: str, *, mounted: bool = True, cgroups: bool = False, runtime: str = "crun"
    ) -> None:
        self.directory = directory
        self.instance = Instance(everybody=True)
        self._cgroups: int | None = None
        try:
            self._configure(images, runtime, cgroups="enabled" if cgroups else "disabled")
            if not mounted:
                assert self.instance.run(["umount", MOUNT_POINT]).returncode == 0
            unshare = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--cgroup"]
            arguments = [str(directory), "cgroup2" if cgroups else "tmpfs", "mounted" if mounted else "bare"]
            self._holder = self.instance.popen(
                [*unshare, "sh", "-c", HOLDER, "sh", *arguments, sys.executable, WAIT],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            assert self._holder.stdout is not None
            assert self._holder.stdout.readline() == "ready\n", "the machine did not start: its message is above"
            if cgroups:
                self._cgroups = os.open(f"/proc/{self._holder.pid}/root{CGROUPS}", os.O_RDONLY | os.O_DIRECTORY)
        except BaseException:
            self.instance.close()
            raise

    def _configure(self, images: str, runtime: str, cgroups: str) -> None:
        (self.directory / "storage").mkdir(parents=True)
        limits = {
            "nproc": resource.getrlimit(resource.RLIMIT_NPROC)[1],
            "nofile": resource.getrlimit(resource.RLIMIT_NOFILE)[1],
        }
        self._write("containers.conf", CONTAINERS_CONF.format(runtime=runtime, cgroups=cgroups, **limits))
        self._write("storage.conf", STORAGE_CONF.format(directory=self.directory, images=images))
        self._write("registries.conf", "")
        self._write("first-namespace.pth", FIRST_NAMESPACE)
        docker = self.directory / "bin/docker"
        docker.parent.mkdir()
        install(docker, DOCKER.format(first_namespace=" ".join(self.as_first_namespace)).encode())

    def _write(self, name: str, text: str) -> None:
        (self.directory / name).write_text(text)

    def close(self) -> None:
        """End the machine: the kernel kills its processes, and drops its mounts and entries."""
        self._holder.kill()  # --kill-child: and with it process 1
        self.instance.close()
        if self._cgroups is not None:
            wait_until(lambda: removed("libpod_parent", self._cgroups), what="podman's control groups empty")
            os.close(self._cgroups)

    def entering(self, argv: Sequence[str]) -> list[str]:
        """Return the command that executes ``argv`` on the machine, as root."""
        pid = self._holder.pid
        enter = ["nsenter", "-U", "--preserve-credentials", "-m", f"--pid=/proc/{pid}/ns/pid_for_children"]
        settings = [
            f"CONTAINERS_CONF={self.directory}/containers.conf",
            f"CONTAINERS_STORAGE_CONF={self.directory}/storage.conf",
            f"CONTAINERS_REGISTRIES_CONF={self.directory}/registries.conf",
            f"HOME={self.directory}",
            f"PATH={self.directory}/bin:{os.environ['PATH']}",
            "PODMAN_IGNORE_CGROUPSV1_WARNING=1",
        ]
        return [*enter, "-t", str(pid), "--", "env", *settings, *argv]

    def run(self, *argv: str) -> Result:
        """Run a command on the machine to its end."""
        return run(self.entering(argv), timeout=RUN_SECONDS)

    def podman(self, *arguments: str) -> Result:
        """Run podman to its end, whatever its exit status."""
        return self.run("podman", *arguments)

    def container(self, *arguments: str) -> Result:
        """Run ``podman run --rm --privileged ARGUMENT...``: options, the image, its arguments."""
        return self.podman("run", "--rm", "--privileged", *arguments)

    def start(self, *arguments: str) -> "Container":
        """Run ``podman run --detach --privileged ARGUMENT...``, and return the container."""
        started = self.podman("run", "--detach", "--privileged", *arguments)
        assert started.status == 0, started.stderr
        return Container(self, started.stdout.strip())

    @property
    def containers(self) -> list[str]:
        """The ids of all containers, running or not."""
        return self.podman("ps", "--all", "--quiet").stdout.split()

    def unmount(self) -> None:
        """Unmount binfmt_misc; the kernel refuses that for as long as a process, such as the daemon, reads an entry."""
        wait_until(lambda: self.run("umount", MOUNT_POINT).status == 0, 30, "an unmount")

    @property
    def as_first_namespace(self) -> list[str]:
        """The options with which binfmtd takes its user namespace for the kernel's first one, as on a host.

        Only the real host's instance is in the first namespace, so this is faked; all that follows from it is real.
        """
        return ["--volume", f"{self.directory}/first-namespace.pth:{SITE_PACKAGES}/first-namespace.pth:ro"]

    def name_images(self, names: Mapping[str, str]) -> None:
        """Give images short names, with which they can be run as well."""
        aliases = [f'"{short}" = "{image}"' for short, image in names.items()]
        self._write("registries.conf", "\n".join(["[aliases]", *aliases]))

    def names(self) -> list[str]:
        """List the entries as ``ls`` on the machine shows them: without stand-ins."""
        found = self.run("ls", MOUNT_POINT)
        assert found.status == 0, found.stderr
        return [name for name in found.stdout.split() if name not in ("register", "status")]


def removed(name: str, parent: int | None) -> bool:
    """Remove a control group with those below it; False as long as there are processes in one."""
    try:
        for path, groups, _, _ in os.fwalk(name, topdown=False, dir_fd=parent):
            for group in groups:
                os.rmdir(f"{path}/{group}", dir_fd=parent)
        os.rmdir(name, dir_fd=parent)
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        return False
    return True


class Container:
    """A container that runs in the background."""

    def __init__(self, machine: Machine, name: str) -> None:
        self._machine = machine
        self.name = name

    def podman(self, command: str, *arguments: str) -> Result:
        """Run ``podman COMMAND ARGUMENT... CONTAINER``."""
        return self._machine.podman(command, *arguments, self.name)

    def execute(self, *argv: str) -> Result:
        """Run a command inside."""
        return self._machine.podman("exec", self.name, *argv)

    def kill(self, number: signal.Signals) -> None:
        """Send a signal to its process 1."""
        sent = self.podman("kill", f"--signal={number.name}")
        assert sent.status == 0, sent.stderr

    def logs(self, event: str | None = None) -> list[dict[str, Any]]:
        """Return its log lines, or those of one event; the daemon writes JSON as process 1 of a container."""
        written = self.podman("logs")
        texts = (written.stdout + written.stderr).splitlines()
        lines = [json.loads(text) for text in texts[:-1]]
        with suppress(ValueError):  # the last one may be half written
            lines += [json.loads(text) for text in texts[-1:]]
        return [line for line in lines if event is None or line["event"] == event]

    def wait_for_log(self, event: str, times: int = 1) -> dict[str, Any]:
        """Return the last log line of this event, once there are so many."""
        return wait_until(lambda: self.logs(event)[times - 1 :], what=f"log line {event}, {times} times")[-1]

    def wait_exit(self) -> int:
        """Wait for its end, and return its exit status."""
        waited = self.podman("wait")
        assert waited.status == 0, waited.stderr
        return int(waited.stdout)

    def stop(self) -> int:
        """Run ``podman stop``: SIGTERM, and SIGKILL 30 seconds later; return the container's exit status."""
        stopped = self.podman("stop", "--time=30")
        assert stopped.status == 0, stopped.stderr
        return self.wait_exit()

    def inspect(self, *keys: str) -> Any:
        """Return a value of ``podman inspect``, under one key after the other."""
        (found,) = self.podman("inspect").json
        for key in keys:
            found = found[key]
        return found

    @property
    def state(self) -> Any:
        """The state of the container, by podman: running, exited ..."""
        return self.inspect("State", "Status")

    @property
    def healthy(self) -> bool:
        """True if the image's health check succeeds now; podman runs it by itself only under systemd."""
        return self.podman("healthcheck", "run").status == 0

    def wait_healthy(self) -> None:
        """Wait until the daemon in it has converged; AssertionError with its log if it ends before."""

        def ask() -> bool:
            assert self.state == "running", self.podman("logs")
            return self.healthy

        wait_until(ask, deadline_seconds=30, what="a healthy container")


StartMachine = Callable[..., Machine]  # the fixture ``start_machine``
