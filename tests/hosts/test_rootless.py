"""Rootless podman, and BuildKit in rootless Docker Engine: the host's handlers serve an ordinary user's containers."""

import subprocess
from collections.abc import Iterator

import pytest
from support import images
from support.cli import BINFMTD, CHECKOUT, Result
from support.foreign_tree import arm64_archive
from support.instance import MOUNT_POINT
from support.open_directory import open_directory
from support.programs import foreign_program
from support.required import Needs
from support.rootless import ROOTLESS_ENGINE, RootlessHost

from binfmtd.catalog.names import find

pytestmark = pytest.mark.hosts

BUILD = CHECKOUT / "build" / "hosts"
IMAGE = "localhost/binfmtd-test/slim"
EMULATED = 42  # the exit status of the tiny program
WITHOUT = 126  # a shell's exit status when no entry takes the file
EMULATOR = "/usr/bin/qemu-riscv64"
DOCKERFILE = """
FROM scratch
ADD root.tar /
RUN test "$(uname -m)" = aarch64
RUN i=0; while [ $i -lt 100 ]; do /bin/true || exit 1; i=$((i + 1)); done
"""


@pytest.fixture(scope="module")
def host(needs: Needs) -> Iterator[RootlessHost]:
    """Yield a host whose user has the image ``slim`` in podman, and a foreign program."""
    needs("podman", "crun", "mmdebstrap", "newuidmap")
    name = images.build("slim")
    with open_directory() as directory:
        archive = directory / "slim.tar"
        subprocess.run(["podman", "save", "--quiet", "--output", str(archive), name], check=True, capture_output=True)
        with RootlessHost(directory / "host") as host:
            image = host.give(archive, "slim.tar")
            loaded = host.user("podman", "load", "--quiet", "--input", str(image))
            assert loaded.status == 0, loaded.stderr
            program = foreign_program(directory / "program", find("riscv64"))
            host.give(program, "program")
            yield host


def on_host(host: RootlessHost, *arguments: str) -> Result:
    """Run binfmtd as root of the host."""
    return host.run("env", f"PYTHONPATH={CHECKOUT}", "BINFMTD_STATE_DIR=/run/binfmtd", *BINFMTD, *arguments)


@pytest.fixture
def served(host: RootlessHost) -> Iterator[RootlessHost]:
    """Yield the host with a handler for riscv64."""
    done = on_host(host, "apply", "--arch", "riscv64")
    assert done.status == 0, done.stderr
    yield host
    host.instance.remove("status")


def answer(host: RootlessHost, *options: str) -> int:
    """Run the foreign program in a shell in a container of the user's; return its exit status, or WITHOUT."""
    program = ("--volume", f"{host.home}/program:/program")
    return host.container(*program, *options, "--entrypoint", "/bin/sh", IMAGE, "-c", "/program").status


def test_podman_without_a_handler(host: RootlessHost) -> None:
    """Without a handler the program does not run, so the next test shows that the handler serves it."""
    assert host.instance.names() == []
    assert answer(host) == WITHOUT


def test_podman(served: RootlessHost) -> None:
    """A handler of the host serves the user's containers, privileged or not."""
    assert [answer(served), answer(served, "--privileged")] == [EMULATED, EMULATED]


@pytest.mark.parametrize("options", [(), ("--privileged",)])
def test_binfmtd_in_a_container(served: RootlessHost, options: tuple[str, ...]) -> None:
    """In a container of the user's, `apply` names what is missing, and doctor tests that the handlers serve."""
    done = served.container(*options, IMAGE, "apply", "--arch", "riscv64")
    assert done.status == 1
    assert "this is a user namespace" in done.message
    assert "--own-instance" in done.message
    doctor = served.container(*options, IMAGE, "doctor", "--json").json
    (mount,) = [found for found in doctor["findings"] if found["section"] == "mount"]
    assert (mount["level"], "programs of riscv64 run (tested)" in mount["text"]) == ("ok", True)


@pytest.mark.parametrize("options", [(), ("--privileged",)])
def test_the_instance_of_the_host_bound_in(served: RootlessHost, options: tuple[str, ...]) -> None:
    """With the host's instance bound in, its entries can be read there; `apply` says that only the host may write."""
    bound = (*options, "--volume", f"{MOUNT_POINT}:/binfmt_misc", "--volume", f"{EMULATOR}:{EMULATOR}:ro")
    explained = served.container(*bound, "--volume", f"{served.home}/program:/program", IMAGE, "explain", "/program")
    assert (explained.status, "qemu-riscv64" in explained.stdout) == (0, True)
    assert on_host(served, "apply", "--arch", "riscv64").status == 0
    served.instance.remove("qemu-riscv64")
    done = served.container(*bound, IMAGE, "apply", "--arch", "riscv64")
    assert done.status == 1
    assert "belongs to an outer user namespace, and only root of that one may write to it" in done.stderr
    assert served.instance.names() == []


def test_an_own_instance(served: RootlessHost) -> None:
    """`run --own-instance` serves its container, and then the host's handlers serve none of the user's containers."""
    script = "binfmtd run --own-instance & binfmtd wait riscv64 && /program; status=$?; kill $!; wait; exit $status"
    volumes = ("--volume", f"{EMULATOR}:{EMULATOR}:ro", "--volume", f"{served.home}/program:/program")
    done = served.container("--privileged", *volumes, "--entrypoint", "/bin/sh", IMAGE, "-c", script)
    assert done.status == EMULATED, done
    assert answer(served) == WITHOUT, "as documented: for as long as podman keeps the user namespace"
    assert served.user("podman", "system", "migrate").status == 0  # ends podman's pause process, which keeps it
    assert answer(served) == EMULATED


def test_buildkit(served: RootlessHost, needs: Needs) -> None:
    """A handler of the host serves `docker buildx build` in the user's Docker Engine, whose BuildKit lists it."""
    needs("dockerd", "docker", "rootlesskit", "slirp4netns", ROOTLESS_ENGINE)
    BUILD.mkdir(parents=True, exist_ok=True)
    archive, dockerfile = arm64_archive(BUILD), served.directory / "Dockerfile"
    dockerfile.write_text(DOCKERFILE)
    project = served.give(archive, "project/root.tar").parent
    served.give(dockerfile, "project/Dockerfile")
    build = ("docker", "buildx", "build", "--no-cache", "--network=none", "--platform=linux/arm64", "--progress=plain")
    with served.engine():
        failed = served.user(*build, str(project))
        assert failed.status != 0
        assert "exec format error" in failed.stderr.lower()
        assert "linux/arm64" not in served.user("docker", "buildx", "ls").stdout
        assert on_host(served, "apply", "--arch", "arm64,riscv64").status == 0
        built = served.user(*build, str(project))
        assert built.status == 0, built.stderr
        assert "linux/arm64" in served.user("docker", "buildx", "ls").stdout
