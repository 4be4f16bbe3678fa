"""A real Docker Engine for a test, on a private host.

slirp4netns connects it to the network, since builds download packages.  The engine has its own data directory, socket,
bridge and packet filter.  The containers are in a user namespace, which binfmtd detects; ``hide_namespace`` hides that
in an image.
"""

import json
import os
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from support.cli import Result, run
from support.containers import FIRST_NAMESPACE, SITE_PACKAGES
from support.private_host import PrivateHost
from support.waiting import wait_until

SOCKET = "/run/docker.sock"
PID_FILE = "/run/docker.pid"
OUR_IMAGES = ("binfmtd", "binfmt")


class Engine(PrivateHost):
    """One engine, from its start to ``close``; ``directory`` has its files and logs, ``data`` its images.

    With ``mounted=False`` only the containers mount binfmt_misc.  With ``real_time`` dockerd may give containers
    a limit for real-time priority.  ``settings`` are the content of its daemon.json.
    """

    groups = (("", "docker"),)

    def __init__(
        self,
        directory: Path,
        data: Path,
        *,
        mounted: bool = True,
        real_time: bool = False,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self._data = data
        self._limits = ["prlimit", "--rtprio=1:1"] if real_time else []
        self._dockerd: subprocess.Popen[Any] | None = None
        (directory / "etc" / "docker").mkdir(parents=True)
        (directory / "etc" / "docker" / "daemon.json").write_text(json.dumps(settings or {}))
        data.mkdir(parents=True, exist_ok=True)
        super().__init__(directory, [data], mounted=mounted)
        try:
            self._connect()
            self.start()
        except BaseException:
            self.instance.close()
            raise

    def _connect(self) -> None:
        """Connect the network namespace; what listens on this machine's loopback stays out of reach."""
        ready, write = os.pipe()
        namespaces = f"/proc/{self.pid}/ns"
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
        self._dockerd = dockerd = self.start_logged("dockerd", command, self._limits)

        def answers() -> bool:
            assert dockerd.poll() is None, (self.directory / "dockerd.log").read_text()[-4000:]
            return self.docker("version").status == 0

        wait_until(answers, 60, "dockerd")

    def stop(self, signal: str = "TERM") -> None:
        """End dockerd, by default as a service manager does."""
        assert self._dockerd is not None
        done = self.run("sh", "-c", f"kill -{signal} $(cat {PID_FILE})")
        assert done.status == 0, done.stderr
        self._dockerd.wait(60)

    def close(self) -> None:
        """End everything, dockerd and the network with it."""
        self._slirp.terminate()
        self._slirp.wait(60)
        super().close()
        if self._dockerd is not None:
            self._dockerd.wait(60)

    def docker(self, *arguments: str, directory: Path | None = None) -> Result:
        """Run docker to its end, whatever its exit status."""
        return self.run("docker", *arguments, directory=directory)

    def checked(self, *arguments: str, directory: Path | None = None) -> Result:
        """Run docker; AssertionError with its messages if it fails."""
        done = self.docker(*arguments, directory=directory)
        assert done.status == 0, self._failure(f"docker {' '.join(arguments)}", done)
        return done

    def _failure(self, command: str, done: Result) -> str:
        """Return what is known of a failed command: Docker repeats only the last line of what runc says."""
        log = (self.directory / "dockerd.log").read_text()
        kernel = run(["dmesg"]).stdout
        memory = Path("/proc/meminfo").read_text().splitlines()[:3]
        return "\n".join(
            (
                command,
                done.stdout[-2000:],
                done.stderr[-4000:],
                "dockerd:",
                log[-3000:],
                "kernel:",
                kernel[-1500:],
                *memory,
            )
        )

    def run_line(self, line: str, directory: Path, tries: int = 1) -> str:
        """Run a line of the documents in a shell, and return its output; AssertionError if all tries fail."""
        done = self.run("sh", "-c", line, directory=directory)
        for _ in range(tries - 1):
            if done.status != 0:
                done = self.run("sh", "-c", line, directory=directory)
        assert done.status == 0, self._failure(line, done)
        if " build" in line:
            for name in OUR_IMAGES:  # a build has replaced them
                if self.docker("image", "inspect", name).status == 0:
                    self.hide_namespace(name)
        return done.stdout

    def remove_containers(self) -> None:
        """Remove all containers: the next engine would start those that are to be restarted.

        Docker may just be removing or restarting one by itself, and then does not do so at our request.
        """

        def removed() -> bool:
            containers = self.checked("ps", "--all", "--quiet").stdout.split()
            return not containers or self.docker("rm", "--force", *containers).status == 0

        wait_until(removed, 60, "the removal of all containers")

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


StartEngine = Callable[..., Engine]  # the fixture ``start_engine``
