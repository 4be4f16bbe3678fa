"""The images of a release for both machines: those for arm64 are built and run in our own emulator for arm64.

`make test-multi-arch` runs it; CI leaves it out, since an emulated build takes long.
"""

import json
import time
from collections.abc import Iterator

import pytest
from support.cli import CHECKOUT, Result
from support.docker_images import BASE, BUILD, base_archive, foreign_base_archive
from support.engine import Engine

pytestmark = pytest.mark.docker

CONTAINERD = {"features": {"containerd-snapshotter": True}}  # which has images for several machines
TARGETS = ("binfmtd", "slim", "binfmt")
MACHINES = ("amd64", "arm64")
REPOSITORY = "localhost:5000/binfmtd"
STOP_SECONDS = 10  # after which Docker kills it
RUN = ("run", "--rm", "--pull", "always", "--network", "none", "--platform")


def single(target: str, machine: str) -> str:
    """Return the image for one machine, with the tag that the release workflow gives it."""
    return f"{REPOSITORY}:1-{target}-{machine}"


def joined(target: str) -> str:
    return f"{REPOSITORY}:1-{target}"


def build(engine: Engine, machine: str) -> None:
    """Build and push the images for one machine as a release does; skopeo pushes, since Docker's own builder cannot."""
    archive = engine.directory / "image.tar"
    for target in TARGETS:
        options = ("--platform", f"linux/{machine}", "--build-arg", f"BASE={BASE}-{machine}")
        command = ["packaging/image/build", "docker", target, target, *options]
        checked(engine, "env", f"OUTPUT=type=oci,dest={archive}", *command)
        name = single(target, machine)
        checked(engine, "skopeo", "copy", "--dest-tls-verify=false", f"oci-archive:{archive}", f"docker://{name}")


def checked(engine: Engine, *command: str) -> None:
    done = engine.run(*command, directory=CHECKOUT)
    assert done.status == 0, (command, done.stderr[-4000:])


@pytest.fixture(scope="module")
def engine(_docker: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """Yield an engine with a registry that has the images for both machines, joined as a release joins them."""
    directory = tmp_path_factory.mktemp("multi-arch") / "engine"
    with Engine(directory, BUILD / "data-multi-arch", settings=CONTAINERD) as engine, engine.registry():
        engine.remove_containers()
        engine.import_tree(base_archive(), f"{BASE}-amd64", "linux/amd64")
        build(engine, "amd64")
        engine.checked("pull", single("binfmtd", "amd64"))
        engine.checked("tag", single("binfmtd", "amd64"), "binfmtd")
        engine.hide_namespace("binfmtd")
        engine.checked("run", "--rm", "--privileged", "binfmtd", "--arch", "arm64")
        engine.import_tree(foreign_base_archive(engine, "arm64"), f"{BASE}-arm64", "linux/arm64")
        build(engine, "arm64")
        for target in TARGETS:
            parts = (single(target, machine) for machine in MACHINES)
            engine.checked("buildx", "imagetools", "create", "--tag", joined(target), *parts)
        yield engine
        engine.remove_containers()


def run(engine: Engine, machine: str, target: str, *arguments: str) -> Result:
    return engine.checked(*RUN, f"linux/{machine}", joined(target), *arguments)


@pytest.mark.parametrize("target", TARGETS)
def test_one_name_has_both(engine: Engine, target: str) -> None:
    """A joined image has one part for each machine, and Docker takes the one that it is asked for."""
    index = json.loads(engine.checked("buildx", "imagetools", "inspect", "--raw", joined(target)).stdout)
    assert [part["platform"]["architecture"] for part in index["manifests"]] == list(MACHINES)
    for machine, uname in (("amd64", "x86_64"), ("arm64", "aarch64")):
        ran = engine.checked(*RUN, f"linux/{machine}", "--entrypoint", "uname", joined(target), "-m")
        assert ran.stdout.strip() == uname


def test_the_emulators_are_of_the_machine(engine: Engine) -> None:
    """An emulator in the part for arm64 is a program for arm64, and in the other one for amd64."""
    for machine, number in (("amd64", 62), ("arm64", 183)):  # e_machine, in elf.h
        script = "print(open('/usr/bin/qemu-riscv64', 'rb').read(20)[18])"
        for target in ("binfmtd", "binfmt"):
            python = ("--entrypoint", "/opt/binfmtd/bin/python", joined(target), "-c", script)
            assert engine.checked(*RUN, f"linux/{machine}", *python).stdout == f"{number}\n"


def test_the_commands(engine: Engine) -> None:
    """The commands print for arm64 what they print for amd64, and an emulator in it runs programs."""
    for arguments in (("--version",), ("arch", "--help"), ("import", "--help"), ("probe", "--help")):
        for target in ("binfmtd", "slim"):
            texts = {run(engine, machine, target, *arguments).stdout for machine in MACHINES}
            assert len(texts) == 1
            assert texts != {""}
    for machine in MACHINES:
        version = engine.checked(
            *RUN, f"linux/{machine}", "--entrypoint", "qemu-riscv64", joined("binfmtd"), "--version"
        )
        assert version.stdout.startswith("qemu-riscv64 version ")


def test_a_daemon_for_arm64(engine: Engine) -> None:
    """The daemon of the part for arm64 becomes healthy, repairs a drift, and ends in time."""
    mount = ("--volume", "/proc/sys/fs/binfmt_misc:/binfmt_misc")
    options = ("--detach", "--name", "daemon", "--platform", "linux/arm64", "--network", "none", *mount)
    engine.checked("run", *options, joined("binfmtd"), "run", "--arch", "riscv64,s390x")
    engine.wait_healthy("daemon")
    assert {"qemu-riscv64", "qemu-s390x"} <= set(engine.instance.names())
    before = engine.instance.inode("qemu-s390x")
    engine.instance.remove("qemu-s390x")
    engine.instance.wait_registered_anew("qemu-s390x", before, 30)
    status = json.loads(engine.checked("exec", "daemon", "binfmtd", "status", "--json").stdout)
    assert status["state"] == "converged"
    began = time.monotonic()
    engine.checked("stop", "daemon")
    assert engine.inspect("daemon", "{{.State.ExitCode}}") == "0"
    assert time.monotonic() - began < STOP_SECONDS
