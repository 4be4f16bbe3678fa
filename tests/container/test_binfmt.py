"""The image ``binfmt`` in the place of tonistiigi/binfmt, with the commands of docker/setup-qemu-action, in its order.

The action runs ``docker run --rm --privileged IMAGE ARGUMENTS`` without any bind.
"""

import json

import pytest
from support.cli import Result, state
from support.containers import Machine
from support.instance import MOUNT_POINT

pytestmark = pytest.mark.container


@pytest.fixture
def binfmt(machine: Machine, binfmt_image: str) -> "Binfmt":
    return Binfmt(machine, binfmt_image)


class Binfmt:
    """The image, as the action runs it."""

    def __init__(self, machine: Machine, image: str) -> None:
        self.machine = machine
        self._image = image

    def __call__(self, *arguments: str) -> Result:
        done = self.machine.container(*self.machine.as_first_namespace, self._image, *arguments)
        assert done.status == 0, done.stderr
        return done


def test_setup_qemu_action(binfmt: Binfmt) -> None:
    """The action's calls work: version, reset, install, and the JSON from which it reads ``supported``."""
    version = binfmt("--version")
    assert version.stdout == ""
    assert " qemu/" in version.stderr

    assert binfmt("--uninstall", "qemu-*").json["emulators"] is None
    installed = binfmt("--install", "all")
    assert {"qemu-aarch64", "qemu-arm", "qemu-s390x"} <= set(binfmt.machine.names())
    platforms = binfmt()
    assert platforms.stdout == installed.stdout
    assert {"linux/arm64", "linux/arm/v7", "linux/s390x", "linux/riscv64"} <= set(platforms.json["supported"])
    assert platforms.json["emulators"] == sorted(binfmt.machine.names())


def test_preserves_argv0(binfmt: Binfmt) -> None:
    """The image sets QEMU_PRESERVE_ARGV0: entries have P, and always O and F."""
    binfmt("--install", "arm64")
    assert "flags: POF\n" in binfmt.machine.instance.read("qemu-aarch64")


def test_reset_spares_others(binfmt: Binfmt) -> None:
    """``--uninstall qemu-*`` removes QEMU's entries and no other."""
    binfmt.machine.instance.register(b":python3:E::py::/usr/bin/python3:")
    binfmt("--install", "arm64")
    left = binfmt("--uninstall", "qemu-*")
    assert binfmt.machine.names() == ["python3"]
    assert json.loads(left.stdout)["emulators"] == ["python3"]


def test_another_container_leaves_what_works(binfmt: Binfmt) -> None:
    """A second container has its emulators in other files of equal content, and registers nothing anew."""
    binfmt("--install", "all")
    before = state(binfmt.machine.instance)
    assert binfmt("--install", "all").stderr == ""
    assert binfmt("--install", "arm64").stderr == "installing: arm64 qemu-aarch64 already registered\n"
    assert state(binfmt.machine.instance) == before


LEAST = ("--cap-drop=all", f"--volume={MOUNT_POINT}:/binfmt_misc")


def test_the_truth_without_core_dumps(machine: Machine, binfmt_image: str) -> None:
    """A hard limit of 0 changes nothing about what runs, nor does the lack of privileges."""
    machine.container(*machine.as_first_namespace, binfmt_image, "--install", "arm64,riscv64")
    done = machine.container(*LEAST, "--ulimit=core=0:0", *machine.as_first_namespace, binfmt_image)
    assert (done.status, done.stderr) == (0, "")
    assert {"linux/arm64", "linux/riscv64"} <= set(done.json["supported"])


def test_nowhere_to_try_a_program(machine: Machine, binfmt_image: str) -> None:
    """If no directory can hold the test programs, ``binfmt`` still prints the JSON, and one error line."""
    nothing = ("--read-only", "--read-only-tmpfs=false")
    done = machine.container(*LEAST, *nothing, *machine.as_first_namespace, binfmt_image)
    assert done.status == 1
    assert done.json["supported"][0] == "linux/amd64"
    assert done.stderr.startswith("error: no directory is usable for the test programs: name one in TMPDIR")
    assert done.stderr.count("\n") == 1
