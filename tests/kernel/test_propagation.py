"""A mount made in a pod that reaches the node: how config/kubernetes has binfmt_misc mounted for everybody.

The instance stands for the node, and a mount namespace in it, with the node's directory bound to another place and
shared with it (``mountPropagation: Bidirectional``), for the container.
"""

import shlex

import pytest
from support.cli import BINFMTD
from support.instance import MOUNT_POINT, Instance

pytestmark = pytest.mark.usefixtures("private_instances")

# The container's own mounts are private, as a runtime makes them.
NODE = """
mount -t tmpfs tmpfs /mnt
mkdir /mnt/binfmt_misc
mount --make-rshared /
mount --make-private /mnt
"""
CONTAINER = f"""
mount --bind {MOUNT_POINT} /mnt/binfmt_misc
exec {{command}} --mount /mnt/binfmt_misc
"""
# With a /proc of its own, on which nothing is mounted yet.
FRESH = ("unshare", "-m", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-euc")
MOUNTS = "grep -c ' - binfmt_misc ' /proc/self/mountinfo"


def in_container(propagation: str, command: str) -> str:
    script = shlex.quote(CONTAINER.format(command=command))
    return f"unshare -m --propagation {propagation} sh -ec {script}"


def test_a_mount_reaches_the_node_and_stays(instance: Instance) -> None:
    """``apply`` mounts at the shared directory: the node and its other containers have it, and keep it."""
    apply = shlex.join([*BINFMTD, "apply", "--own-instance", "--arch", "arm64", "--state-dir", "/mnt/state"])
    script = f"{NODE}\n{in_container('unchanged', apply)}\n{MOUNTS}\nls {MOUNT_POINT}\n"
    node = instance.run([*FRESH, f"{script}unshare -m --propagation slave ls {MOUNT_POINT}"])
    assert node.returncode == 0, node.stderr
    assert node.stdout.split("\n1\n", 1)[1].split() == ["qemu-aarch64", "register", "status"] * 2


def test_a_mount_that_does_not_reach_the_node(instance: Instance) -> None:
    """Without the sharing nothing would be left: ``apply`` says so, and leaves no mount."""
    apply = shlex.join([*BINFMTD, "apply", "--own-instance", "--arch", "arm64", "--state-dir", "/mnt/state"])
    node = instance.run([*FRESH, f"{NODE}\n{in_container('slave', apply)} || true\n{MOUNTS} || true"])
    assert "nothing was registered" in node.stderr
    assert node.stdout == "0\n"
