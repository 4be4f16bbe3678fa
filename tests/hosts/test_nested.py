"""Containers with their own user namespace in such containers, as LXC and Incus make them: whose binfmt_misc is used.

The kernel takes the instance of the nearest user namespace that has mounted one (load_binfmt_misc in fs/binfmt_misc.c).
"""

import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from support import Closing
from support.cli import BINFMTD, Result, run, unprivileged_python
from support.instance import MOUNT_POINT, Instance
from support.open_directory import open_directory
from support.programs import exits_with, install
from support.waiting import wait_until

pytestmark = pytest.mark.hosts

CONFIG = r"""
architectures = []
[handlers.{name}]
magic = '\x00file'
interpreter = "{interpreter}"
flags = "F"
"""
PROGRAM = b"\x00file"
HOLDER = """
mount -t proc proc /proc
mount -t tmpfs -o mode=755 tmpfs /run
echo ready
read -r _
"""
HOST, OUTER = 51, 52
WITHOUT = 126  # a shell's exit status when no entry takes the file


def readable_binfmtd() -> list[str]:
    """Return the command of binfmtd with a Python that every user may read."""
    command = unprivileged_python()
    return [*command[command.index("env") :], "-m", "binfmtd"]


class Container(Closing):
    """A container in a host or in another container: its root is user 1000 there, and it has half of the users.

    Its /proc is a new one, so it has nothing mounted at binfmt_misc's directory.
    """

    def __init__(self, around: "Instance | Container", users: int) -> None:
        self._around = around
        maps = [f"--map-{kind}s=1000,0,{users}" for kind in ("user", "group")]
        unshare = ["unshare", "--user", *maps, "--setuid=0", "--setgid=0", "--mount", "--propagation=private"]
        pipe = subprocess.PIPE
        command = around.entering([*unshare, "--pid", "--fork", "--kill-child", "sh", "-euc", HOLDER])
        self._holder = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == "ready\n"

    def close(self) -> None:
        self._holder.kill()
        self._holder.communicate()

    def entering(self, argv: Sequence[str]) -> list[str]:
        """Return the command that executes ``argv`` in the container, as its root."""
        process = str(self._holder.pid)
        while child := Path(f"/proc/{process}/task/{process}/children").read_text():
            (process,) = child.split()  # nsenter and unshare wait for theirs; the shell has none
        return ["nsenter", "-U", "-m", "-p", "-S", "0", "-G", "0", "-t", process, "--", *argv]

    def run(self, *argv: str) -> Result:
        return run(self.entering(argv))

    def binfmtd(self, *arguments: str) -> Result:
        """Run a command of binfmtd as the container's root, who is an ordinary user of the host."""
        return self.run(*readable_binfmtd(), *arguments)


@pytest.fixture
def directory() -> Iterator[Path]:
    """Yield a directory that every user may read, with a program and two interpreters."""
    with open_directory() as directory:
        install(directory / "program", PROGRAM)
        for status in (HOST, OUTER):
            install(directory / f"interpreter-{status}", exits_with(status))
            (directory / f"{status}.toml").write_text(
                CONFIG.format(name=f"handler-{status}", interpreter=f"{directory}/interpreter-{status}")
            )
        yield directory


@pytest.fixture
def host(directory: Path) -> Iterator[Instance]:
    """Yield the host, with one handler."""
    with Instance(everybody=True) as instance:
        environment = ["env", f"BINFMTD_STATE_DIR={directory}/state"]
        applied = run(instance.entering([*environment, *BINFMTD, "apply", "--config", f"{directory}/{HOST}.toml"]))
        assert applied.status == 0, applied.stderr
        yield instance


@pytest.fixture
def outer(host: Instance) -> Iterator[Container]:
    with Container(host, 40000) as container:
        yield container


@pytest.fixture
def inner(outer: Container) -> Iterator[Container]:
    """Yield a container in the container."""
    with Container(outer, 20000) as container:
        yield container


def answer(container: Container, directory: Path) -> int:
    """Run the program in the container; return its interpreter's exit status, or WITHOUT."""
    return container.run("sh", "-c", f"{directory}/program").status


def test_the_handlers_of_the_host(directory: Path, outer: Container, inner: Container) -> None:
    """Without an instance of their own, both containers use the host's, which they see nowhere."""
    for container in (outer, inner):
        assert answer(container, directory) == HOST
        assert container.run("ls", MOUNT_POINT).stdout == ""
        done = container.binfmtd("apply", "--config", f"{directory}/{OUTER}.toml")
        assert done.status == 1
        assert "this is a user namespace" in done.message
        assert "--own-instance" in done.message
        checked = container.binfmtd("doctor", "--json", "--config", f"{directory}/{OUTER}.toml")
        assert checked.stderr == ""
        doctor = checked.json
        (owner,) = [found for found in doctor["not_seen"] if found["section"] == "user_namespace"]
        assert "if an instance was ever mounted in this user namespace, the host's is hidden" in owner["text"]


def test_the_instance_of_the_outer_container(
    directory: Path, host: Instance, outer: Container, inner: Container
) -> None:
    """An instance of the outer container hides the host's from both containers; the host keeps its own."""
    config = f"{directory}/{OUTER}.toml"
    daemon = subprocess.Popen(outer.entering([*readable_binfmtd(), "run", "--own-instance", "--config", config]))
    try:
        wait_until(lambda: outer.binfmtd("status", "--check").status == 0, what="the outer container's daemon")
        assert [answer(container, directory) for container in (outer, inner)] == [OUTER, OUTER]
        assert run(host.entering(["sh", "-c", f"{directory}/program"])).status == HOST
        assert host.names() == [f"handler-{HOST}"]
        doctor = outer.binfmtd("doctor", "--json").json
        (owner,) = [found for found in doctor["findings"] if found["section"] == "user_namespace"]
        assert "has an instance of its own" in owner["text"]
    finally:
        outer.run("sh", "-c", "kill $(head -n 1 /run/binfmtd/lock)")
        assert daemon.wait(60) == 0
    # The daemon's mount stays in the container, and with it the entries.
    assert [answer(container, directory) for container in (outer, inner)] == [OUTER, OUTER]
    assert outer.run("umount", MOUNT_POINT).status == 0
    assert [answer(container, directory) for container in (outer, inner)] == [WITHOUT, WITHOUT]


def test_the_host_bound_into_a_container(directory: Path, host: Instance, outer: Container) -> None:
    """Root of a container may read the host's instance; a write fails, and the message names root of the host."""
    bound = directory / "bound"
    bound.mkdir()
    # As a container's manager does, before it hands the mounts over.
    assert host.run(["mount", "--bind", MOUNT_POINT, str(bound)]).returncode == 0
    with Container(host, 40000) as container:
        options = ("--config", f"{directory}/{OUTER}.toml", "--mount", str(bound))
        assert container.binfmtd("plan", *options).rows[1][:3] == ["register", f"handler-{OUTER}", "missing"]
        done = container.binfmtd("apply", *options)
        assert done.status == 1
        assert "belongs to an outer user namespace, and only root of that one may write to it" in done.stderr
        assert "run as root" not in done.stderr
    assert outer.binfmtd("plan", "--mount", str(bound)).status == 1, "a container that began before has no such mount"
