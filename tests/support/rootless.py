"""A private host with an ordinary user who runs podman and Docker Engine without root.

The user has 50,000 ids of the host's besides his own (/etc/subuid), so each of his containers is in a user namespace
inside of the host's.  That one has no binfmt_misc of its own, and the host's handlers serve in it.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from support.cli import Result, run
from support.private_host import RUN_SECONDS, PrivateHost
from support.waiting import wait_until

UID = 1000
RUNTIME = f"/run/user/{UID}"
# /tmp is read-only on a private host, and rootlesskit writes there.  The host's directory may be below /tmp, and so may
# this Python.
PREPARE = f"""
echo 'builder:x:{UID}:{UID}::$1/home:/bin/sh' >>/etc/passwd
echo 'builder:x:{UID}:' >>/etc/group
echo 'builder:10000:50000' >>/etc/subuid
echo 'builder:10000:50000' >>/etc/subgid
mkdir -p /run/kept /run/upper /run/work {RUNTIME}
mount --bind "$1" /run/kept
chmod 1777 /run/upper
mount -t overlay -o userxattr,lowerdir=/tmp,upperdir=/run/upper,workdir=/run/work overlay /tmp
mount --bind /run/kept "$1"
mkdir "$1/home"
chown {UID}:{UID} "$1/home" {RUNTIME}
chmod 700 {RUNTIME}
mount --bind "$1/tun" /dev/net/tun
"""
PODMAN = ("podman", "run", "--rm", "--cgroups=disabled", "--network=none")
ROOTLESS_ENGINE = "/usr/share/docker.io/contrib/dockerd-rootless.sh"


class RootlessHost(PrivateHost):
    """One host, from its start to ``close``; ``home`` is the user's directory."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, [], mounted=True)
        self.home = directory / "home"
        self.directory.chmod(0o755)
        # Each user may open the device on most systems; where only root may, the user gets a node of the test's own.
        tun = directory / "tun"
        os.mknod(tun, 0o20666, os.stat("/dev/net/tun").st_rdev)
        tun.chmod(0o666)
        done = self.run("sh", "-euc", PREPARE, "sh", str(directory))
        assert done.status == 0, done.stderr

    def user(self, *argv: str, directory: Path | None = None) -> Result:
        """Run a command as the user, to its end."""
        return run(self.entering(self._as_user(argv), directory), timeout=RUN_SECONDS)

    def _as_user(self, argv: Sequence[str]) -> list[str]:
        settings = [f"HOME={self.home}", "USER=builder", f"XDG_RUNTIME_DIR={RUNTIME}", f"TMPDIR={self.home}"]
        settings += ["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "PODMAN_IGNORE_CGROUPSV1_WARNING=1"]
        settings += [f"DOCKER_HOST=unix://{RUNTIME}/docker.sock"]
        return ["setpriv", f"--reuid={UID}", f"--regid={UID}", "--init-groups", "env", *settings, *argv]

    def give(self, file: Path, name: str) -> Path:
        """Copy a file of the test's to the user's directory; return the copy."""
        copy = self.home / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, copy)
        for path in (copy, copy.parent):
            os.chown(path, UID, UID)
        return copy

    def container(self, *arguments: str) -> Result:
        """Run ``podman run ARGUMENT...`` as the user: options, the image, its arguments."""
        return self.user(*PODMAN, *arguments)

    @contextmanager
    def engine(self) -> Iterator[None]:
        """Run Docker Engine as the user, by the script that comes with it."""
        network = ["--iptables=false", "--ip6tables=false", "--bridge=none", "--ip-forward=false"]
        storage = [f"--data-root={self.home}/docker", "--storage-driver=vfs"]
        engine = self.start_logged("dockerd", self._as_user([ROOTLESS_ENGINE, *network, *storage]))

        def answers() -> bool:
            assert engine.poll() is None, (self.directory / "dockerd.log").read_text()[-4000:]
            return self.user("docker", "version").status == 0

        try:
            wait_until(answers, 60, "the user's dockerd")
            yield
        finally:
            engine.terminate()
            try:
                engine.wait(60)
            except subprocess.TimeoutExpired:
                engine.kill()
