"""The entries of a container, after it has ended."""

import pytest
from support.containers import Machine, StartMachine
from support.instance import MOUNT_POINT
from support.programs import foreign_program

from binfmtd.catalog.architectures import CATALOG

pytestmark = pytest.mark.container

EXIT_STATUS = 42
ARCH = ("--arch", "aarch64")


def in_chroot(machine: Machine) -> int:
    """Run an aarch64 program on the machine, in a root with this program only; return its exit status."""
    root = machine.directory / "root"
    root.mkdir(exist_ok=True)
    program = root / "program"
    if not program.exists():
        foreign_program(program, CATALOG["aarch64"])
    return machine.run("chroot", str(root), "/program").status


def test_pinned_emulators_serve_on(machine: Machine, image: str) -> None:
    """With F, which is the default, the image's emulator runs programs when the container is gone, in any root."""
    assert in_chroot(machine) != EXIT_STATUS
    assert machine.container(f"--volume={MOUNT_POINT}:/binfmt_misc", image, *ARCH).status == 0
    assert machine.containers == []
    assert in_chroot(machine) == EXIT_STATUS


def test_an_instance_that_would_end_with_the_container(bare_machine: Machine, image: str) -> None:
    """A container registers no entry that would end with it: exit status 1, with the reason and each remedy."""
    done = bare_machine.container(*bare_machine.as_first_namespace, image)
    assert done.status == 1
    assert done.stdout == ""
    for remedy in (f"-v {MOUNT_POINT}:/binfmt_misc", "--pid=host", "binfmtd run", "on the host"):
        assert remedy in done.message
    assert in_chroot(bare_machine) != EXIT_STATUS


def test_an_instance_that_no_other_mount_on_a_node_holds(bare_machine: Machine, image: str) -> None:
    """In a pod the remedies are those of Kubernetes."""
    done = bare_machine.container(*bare_machine.as_first_namespace, "--env=KUBERNETES_SERVICE_HOST=10.96.0.1", image)
    assert done.status == 1
    for remedy in ("on the node", "hostPath", "Bidirectional", "binfmtd run"):
        assert remedy in done.message
    assert "--pid=host" not in done.message


def test_pid_host_mounts_on_the_host(start_machine: StartMachine, image: str) -> None:
    """With --pid=host the container mounts binfmt_misc on the host, and the entries last."""
    machine = start_machine(mounted=False, cgroups=True)
    done = machine.container("--pid=host", *machine.as_first_namespace, image, *ARCH)
    assert (done.status, done.stderr) == (0, "")
    assert machine.names() == ["qemu-aarch64"]
    assert in_chroot(machine) == EXIT_STATUS


def test_a_user_namespace_gets_no_instance_unasked(bare_machine: Machine, image: str) -> None:
    """In a user namespace nothing is mounted: exit status 1, with the effect of a mount, and the option for it."""
    done = bare_machine.container(image)
    assert done.status == 1
    assert "would hide the host's handlers" in done.message
    assert "--own-instance" in done.message


def test_own_instance(machine: Machine, image: str) -> None:
    """With --own-instance the namespace's instance is mounted; here the machine holds it as well, so entries last."""
    done = machine.container(image, "--own-instance", *ARCH)
    assert (done.status, done.stderr) == (0, "")
    assert in_chroot(machine) == EXIT_STATUS


def test_own_instance_that_would_end_with_the_container(bare_machine: Machine, image: str) -> None:
    """--own-instance does not register entries that would end with the container either."""
    done = bare_machine.container(image, "--own-instance", *ARCH)
    assert done.status == 1
    assert "nothing was registered" in done.message


@pytest.mark.parametrize("namespace", ["the first one", "its own"])
def test_the_daemon_holds_the_instance(bare_machine: Machine, image: str, namespace: str) -> None:
    """If nothing else has binfmt_misc mounted, the daemon's container does: handlers serve for as long as it runs.

    They serve the other containers of the same user namespace too, such as those of a pod, or of a user without root.
    """
    if namespace == "its own":
        daemon = bare_machine.start(image, "run", "--own-instance", *ARCH)
    else:
        daemon = bare_machine.start(*bare_machine.as_first_namespace, image, "run", *ARCH)
    daemon.wait_healthy()
    assert in_chroot(bare_machine) == EXIT_STATUS
    neighbour = ["run", "--rm", f"--volume={bare_machine.directory}/root:/mnt", "--entrypoint=/mnt/program", image]
    assert bare_machine.podman(*neighbour).status == EXIT_STATUS
    assert daemon.stop() == 0
    assert in_chroot(bare_machine) != EXIT_STATUS
