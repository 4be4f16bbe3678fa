"""A mount made in a pod that reaches the node: how config/kubernetes has binfmt_misc mounted for everybody.

The instance stands for the node, and a mount namespace in it, with the node's directory bound to another place and
shared with it (``mountPropagation: Bidirectional``), for the container.
"""

import shlex

import pytest
from support.cli import BINFMTD
from support.instance import MOUNT_POINT, Instance

pytestmark = pytest.mark.usefixtures("private_instances")

APPLY = shlex.join([*BINFMTD, "apply", "--own-instance", "--arch", "arm64", "--state-dir", "/mnt/state"])

# The container's own mounts are private, as a runtime makes them.
NODE = """
mount -t tmpfs tmpfs /mnt
mkdir /mnt/binfmt_misc
mount --make-rshared /
mount --make-private /mnt
"""
CONTAINER = f"""
mount --bind {MOUNT_POINT} /mnt/binfmt_misc
exec {APPLY} --mount /mnt/binfmt_misc
"""
# With a /proc of its own, on which nothing is mounted yet.
FRESH = ("unshare", "-m", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-euc")
MOUNTS = "grep -c ' - binfmt_misc ' /proc/self/mountinfo"


def in_container(propagation: str) -> str:
    return f"unshare -m --propagation {propagation} sh -ec {shlex.quote(CONTAINER)}"


@pytest.fixture
def bare_instance(instance: Instance) -> Instance:
    """Return an instance that nobody has mounted."""
    instance.shell(f"umount {MOUNT_POINT}", check=True)
    return instance


def test_a_mount_reaches_the_node_and_stays(bare_instance: Instance) -> None:
    """``apply`` mounts at the shared directory: the node and its other containers have it, and keep it."""
    script = f"{NODE}\n{in_container('unchanged')}\n{MOUNTS}\nls {MOUNT_POINT}\n"
    node = bare_instance.run([*FRESH, f"{script}unshare -m --propagation slave ls {MOUNT_POINT}"])
    assert node.returncode == 0, node.stderr
    assert node.stdout.split("\n1\n", 1)[1].split() == ["qemu-aarch64", "register", "status"] * 2


def test_a_mount_that_does_not_reach_the_node(bare_instance: Instance) -> None:
    """Without the sharing nothing would be left: ``apply`` says so, and leaves no mount."""
    node = bare_instance.run([*FRESH, f"{NODE}\n{in_container('slave')} || true\n{MOUNTS} || true"])
    assert "nothing was registered" in node.stderr
    assert node.stdout == "0\n"
