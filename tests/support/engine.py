"""A real Docker Engine for a test: dockerd with a private instance of binfmt_misc, in the place of a host's.

dockerd runs in a user, mount, process, control group and network namespace of its own, with its own data directory,
socket, bridge and packet filter.  slirp4netns connects it to the network, since builds download packages.  /etc and
/var/lib are overlays, and all other files are read-only, but for the engine's two directories.  So nothing of this
machine's own dockerd, bridges, rules or files is touched, and all but the data directory ends with the engine.

The containers are in a user namespace, which binfmtd detects; ``hide_namespace`` hides that in an image.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from support.cli import Result, run
from support.containers import CGROUPS, FIRST_NAMESPACE, SITE_PACKAGES, WAIT, removed
from support.instance import MOUNT_POINT, Instance
from support.waiting import wait_until

RUN_SECONDS = 900
SOCKET = "/run/docker.sock"
PID_FILE = "/run/docker.pid"
# The first argument is the engine's directory, the second that of its images; the third says if binfmt_misc is mounted.
HOLDER = f"""
set -e
for directory in etc var/lib; do
    mkdir -p "$1/$directory" "$1/work/$directory"
    layers="lowerdir=/$directory,upperdir=$1/$directory,workdir=$1/work/$directory"
    mount -t overlay -o "userxattr,$layers" overlay "/$directory"
done
for directory in /run /var/tmp /var/cache; do mount -t tmpfs -o mode=1777 tmpfs "$directory"; done
mount -t cgroup2 none {CGROUPS}
for directory in "$1" "$2"; do mount --bind "$directory" "$directory"; done
mount -o remount,bind,ro /
ip link set lo up
[ "$3" = bare ] || mount -t binfmt_misc binfmt_misc {MOUNT_POINT}
exec "$4" -c "$5"
"""
OUR_IMAGES = ("binfmtd", "binfmt")
UNSHARE = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--cgroup", "--net")


class Engine:
    """One engine, from its start to ``close``; ``directory`` has its files and logs, ``data`` its images.

    With ``mounted=False`` only the containers mount binfmt_misc.  With ``real_time`` dockerd may give containers
    a limit for real-time priority.  ``settings`` are the content of its daemon.json.
    """

    def __init__(
        self,
        directory: Path,
        data: Path,
        *,
        mounted: bool = True,
        real_time: bool = False,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.directory = directory
        self._data = data
        self._limits = ["prlimit", "--rtprio=1:1"] if real_time else []
        self._dockerd: subprocess.Popen[Any] | None = None
        (directory / "tmp").mkdir(parents=True)
        (directory / "etc" / "docker").mkdir(parents=True)
        (directory / "etc" / "docker" / "daemon.json").write_text(json.dumps(settings or {}))
        data.mkdir(parents=True, exist_ok=True)
        self.instance = Instance(everybody=True)
        try:
            if not mounted:
                assert self.instance.run(["umount", MOUNT_POINT]).returncode == 0
            arguments = [str(directory), str(data), "mounted" if mounted else "bare", sys.executable, WAIT]
            pipe = subprocess.PIPE
            command = [*UNSHARE, "sh", "-c", HOLDER, "sh", *arguments]
            self._holder = self.instance.popen(command, stdin=pipe, stdout=pipe, text=True)
            assert self._holder.stdout is not None
            assert self._holder.stdout.readline() == "ready\n", "the engine's machine did not start: see above"
            self._cgroups = os.open(f"/proc/{self._holder.pid}/root{CGROUPS}", os.O_RDONLY | os.O_DIRECTORY)
            self._connect()
            self.start()
        except BaseException:
            self.instance.close()
            raise

    def _connect(self) -> None:
        """Connect the network namespace; what listens on this machine's loopback stays out of reach."""
        ready, write = os.pipe()
        namespaces = f"/proc/{self._holder.pid}/ns"
        command = ["slirp4netns", "--configure", "--mtu=1400", "--disable-host-loopback", f"--ready-fd={write}"]
        command += ["--netns-type=path", f"--userns-path={namespaces}/user", f"{namespaces}/net", "tap0"]
        with (self.directory / "slirp4netns.log").open("wb") as log:
            self._slirp = subprocess.Popen(command, stdout=log, stderr=log, pass_fds=[write])
        os.close(write)
        with os.fdopen(ready, "rb") as pipe:
            assert pipe.read(1) == b"1", (self.directory / "slirp4netns.log").read_text()

    def start(self) -> None:
        """Start dockerd, and wait until it answers."""
        command = ["dockerd", f"--data-root={self._data}", f"--host=unix://{SOCKET}", f"--pidfile={PID_FILE}"]
        path = self.directory / "dockerd.log"
        with path.open("ab") as log:
            dockerd = subprocess.Popen([*self._limits, *self.entering(command)], stdout=log, stderr=log)
        self._dockerd = dockerd

        def answers() -> bool:
            assert dockerd.poll() is None, path.read_text()[-4000:]
            return self.docker("version").status == 0

        wait_until(answers, 60, "dockerd")

    def stop(self, signal: str = "TERM") -> None:
        """End dockerd, by default as a service manager does."""
        assert self._dockerd is not None
        done = self.run("sh", "-c", f"kill -{signal} $(cat {PID_FILE})")
        assert done.status == 0, done.stderr
        self._dockerd.wait(60)

    @contextmanager
    def registry(self) -> Iterator[None]:
        """Run Debian's docker-registry at localhost:5000 of the engine's machine."""
        config = self.directory / "registry.yml"
        storage = {"filesystem": {"rootdirectory": str(self.directory / "registry")}}
        config.write_text(json.dumps({"version": 0.1, "storage": storage, "http": {"addr": "localhost:5000"}}))
        with (self.directory / "registry.log").open("wb") as log:
            command = self.entering(["docker-registry", "serve", str(config)])
            server = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            probe = "exec 3<>/dev/tcp/localhost/5000"
            wait_until(lambda: self.run("bash", "-c", probe).status == 0, 30, "the registry")
            yield
        finally:
            self.run("pkill", "docker-registry")
            server.wait(60)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End everything: the kernel kills the processes, and drops mounts and entries."""
        self._holder.kill()  # --kill-child: and with it process 1
        self._slirp.terminate()
        self._slirp.wait(60)
        if self._dockerd is not None:
            self._dockerd.wait(60)
        self.instance.close()
        wait_until(lambda: removed("docker", self._cgroups), what="docker's control groups empty")
        os.close(self._cgroups)

    def entering(self, argv: Sequence[str], directory: Path | None = None) -> list[str]:
        """Return the command that executes ``argv`` on the engine's machine, as root, in this directory."""
        pid = self._holder.pid
        enter = ["nsenter", "-U", "--preserve-credentials", "-m", "-n", "-C", f"--pid=/proc/{pid}/ns/pid_for_children"]
        settings = [
            f"PATH={os.environ['PATH']}:/usr/sbin:/sbin",
            f"HOME={self.directory}",
            f"TMPDIR={self.directory / 'tmp'}",
        ]
        return [*enter, "-t", str(pid), "--", "env", "-i", f"--chdir={directory or '/'}", *settings, *argv]

    def run(self, *argv: str, directory: Path | None = None) -> Result:
        """Run a command on the engine's machine to its end."""
        return run(self.entering(argv, directory), timeout=RUN_SECONDS)

    def docker(self, *arguments: str, directory: Path | None = None) -> Result:
        """Run docker to its end, whatever its exit status."""
        return self.run("docker", *arguments, directory=directory)

    def checked(self, *arguments: str, directory: Path | None = None) -> Result:
        """Run docker; AssertionError with its messages if it fails."""
        done = self.docker(*arguments, directory=directory)
        assert done.status == 0, f"docker {' '.join(arguments)}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        return done

    def run_line(self, line: str, directory: Path) -> str:
        """Run a line of the documents in a shell, and return its output; AssertionError if it fails."""
        done = self.run("sh", "-c", line, directory=directory)
        assert done.status == 0, f"{line}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        if " build" in line:
            for name in OUR_IMAGES:  # a build has replaced them
                if self.docker("image", "inspect", name).status == 0:
                    self.hide_namespace(name)
        return done.stdout

    def remove_containers(self) -> None:
        """Remove all containers: the next engine would start those that are to be restarted."""
        if containers := self.checked("ps", "--all", "--quiet").stdout.split():
            self.checked("rm", "--force", *containers)

    def hide_namespace(self, image: str) -> None:
        """Have binfmtd in this image take its user namespace for the kernel's first one, as on a host.

        Only the real host's instance is in the first namespace, so this is faked; all that follows from it is real.
        """
        context = self.directory / "hidden"
        context.mkdir(exist_ok=True)
        (context / "first.pth").write_text(FIRST_NAMESPACE)
        (context / "Dockerfile").write_text(f"FROM {image}\nCOPY first.pth {SITE_PACKAGES}/first-namespace.pth\n")
        self.checked("build", "--tag", image, str(context))

    def hide_namespace_in_compose(self, directory: Path) -> None:
        """Do the same for the services in this directory's compose.yaml, whose images Compose may build."""
        (self.directory / "first.pth").write_text(FIRST_NAMESPACE)
        volume = f"{self.directory}/first.pth:{SITE_PACKAGES}/first-namespace.pth:ro"
        services = {name: {"volumes": [volume]} for name in OUR_IMAGES}
        (directory / "compose.override.yaml").write_text(json.dumps({"services": services}))

    def import_tree(self, archive: Path, name: str, platform: str) -> None:
        """Make an image from the archive of a root directory."""
        self.checked("import", "--platform", platform, str(archive), name)

    def inspect(self, container: str, template: str) -> str:
        """Return what ``docker inspect --format`` prints."""
        return self.checked("inspect", "--format", template, container).stdout.strip()

    def process_of(self, container: str) -> int:
        """Return the number of the container's process 1, on the engine's machine."""
        return int(self.inspect(container, "{{.State.Pid}}"))

    def wait_healthy(self, container: str) -> None:
        """Wait until Docker itself calls the container healthy; AssertionError with its log if it ends before."""

        def ask() -> bool:
            state, health = self.inspect(container, "{{.State.Status}} {{.State.Health.Status}}").split()
            assert state == "running", self.docker("logs", container)
            return health == "healthy"

        wait_until(ask, 60, "a healthy container")

    @property
    def runs(self) -> bool:
        """True until ``close``."""
        return self._holder.poll() is None

    @property
    def root(self) -> Path:
        """The root directory of the engine's machine, as seen from outside."""
        return Path(f"/proc/{self._holder.pid}/root")

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

    def __init__(self, engine: Engine, tree: Path) -> None:
        self._count = tree / "count"
        self._count.write_text("0")
        pipe = subprocess.PIPE
        # nsenter is the parent: what it has started ends with it.
        command = engine.entering(["setpriv", "--pdeathsig=KILL", "chroot", str(tree), "/bin/sh", "-c", self._LOOP])
        self._process = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True)

    def wait_for_more(self) -> None:
        """Wait for 100 more executions; AssertionError if one has failed."""
        first = self._number()

        def more() -> bool:
            assert self._process.poll() is None, self._process.communicate()
            return self._number() >= first + 100

        wait_until(more, 60, "100 executions")

    def _number(self) -> int:
        return int(self._count.read_text().strip() or "0")

    def end(self) -> None:
        """End the shell."""
        self._process.kill()
        self._process.communicate()
