"""``docker run`` as with linuxkit/binfmt: register, and exit.

Most tests run with each way to bind binfmt_misc in.  Without a bind the container mounts it itself, as on a host, where
the container is in no user namespace.
"""

import os
import shutil

import pytest
from support.cli import Result
from support.containers import Machine, StartMachine
from support.instance import MOUNT_POINT

pytestmark = pytest.mark.container

CHOSEN = {"qemu-arm", "qemu-aarch64"}

Binding = list[str]


@pytest.fixture(params=["at its place", "elsewhere", "not at all"])
def binding(request: pytest.FixtureRequest, machine: Machine) -> Binding:
    """Return the options by which a container reaches the machine's binfmt_misc."""
    ways = {
        "at its place": [f"--volume={MOUNT_POINT}:{MOUNT_POINT}"],
        "elsewhere": [f"--volume={MOUNT_POINT}:/binfmt_misc"],
        "not at all": machine.as_first_namespace,
    }
    return ways[request.param]


def succeeded(result: Result) -> None:
    assert (result.status, result.stderr) == (0, "")


def foreign_architectures(machine: Machine, image: str) -> set[str]:
    rows = machine.container(image, "arch", "--json").json
    return {row["name"] for row in rows if not row["native"]}


def test_without_arguments(machine: Machine, image: str, binding: Binding) -> None:
    """Every architecture that does not run natively gets ``qemu-NAME``; ``cat`` shows it, ``echo -1`` removes it."""
    succeeded(machine.container(*binding, image))
    assert set(machine.names()) == {f"qemu-{name}" for name in foreign_architectures(machine, image)}
    shown = machine.run("sh", "-c", f"cat {MOUNT_POINT}/qemu-*").stdout
    assert shown.count("enabled\n") == len(machine.names())
    assert machine.run("sh", "-c", f"echo -1 > {MOUNT_POINT}/qemu-arm").status == 0
    assert "qemu-arm" not in machine.names()


def test_arch(machine: Machine, image: str, binding: Binding) -> None:
    """``--arch arm,arm64`` registers these two."""
    succeeded(machine.container(*binding, image, "--arch", "arm,arm64"))
    assert set(machine.names()) == CHOSEN


def test_no_autoload(machine: Machine, image: str, binding: Binding) -> None:
    """``--no-autoload`` changes nothing where the kernel has binfmt_misc."""
    succeeded(machine.container(*binding, image, "--arch", "arm,arm64", "--no-autoload"))
    assert set(machine.names()) == CHOSEN


def test_environment(machine: Machine, image: str, binding: Binding) -> None:
    """Environment variables have the effect of the options."""
    variables = ["--env=BINFMTD_ARCH=arm,arm64", "--env=BINFMTD_NO_AUTOLOAD=1"]
    succeeded(machine.container(*binding, *variables, image))
    assert set(machine.names()) == CHOSEN


@pytest.mark.parametrize("by_environment", [False, True])
def test_persistent(machine: Machine, image: str, binding: Binding, by_environment: bool) -> None:
    """``--persistent`` leaves lines for the host's systemd-binfmt, and the emulators that they point to."""
    host = machine.directory / "host"
    binds = []
    for directory in ("etc/binfmt.d", "var/lib/binfmtd"):
        (host / directory).mkdir(parents=True)
        binds.append(f"--volume={host}/{directory}:/host/{directory}")
    if by_environment:
        binds.append("--env=BINFMTD_PERSISTENT=1")
    options = [] if by_environment else ["--persistent"]
    done = machine.container(*binding, *binds, image, "--arch", "arm,arm64", *options)
    assert done.status == 0, done.stderr
    assert set(machine.names()) == CHOSEN
    lines = (host / "etc/binfmt.d/binfmtd.conf").read_text().splitlines()
    rules = {line.split(":")[1]: line for line in lines if line.startswith(":")}
    assert set(rules) == CHOSEN
    for name, line in rules.items():
        interpreter, flags = line.split(":")[6:]
        assert interpreter == f"/var/lib/binfmtd/boot/usr/bin/{name}"
        assert "F" in flags
        assert os.access(f"{host}{interpreter}", os.X_OK)


def test_persistent_without_the_host(machine: Machine, image: str, binding: Binding) -> None:
    """``--persistent`` without a host directory ends with 1 and names the mount to add; it registers nothing."""
    done = machine.container(*binding, image, "--arch", "arm", "--persistent")
    assert done.status == 1
    assert "-v /etc/binfmt.d:/host/etc/binfmt.d" in done.message
    assert machine.names() == []


def test_unknown_architecture(machine: Machine, image: str, binding: Binding) -> None:
    """A mistyped architecture is an error that names the one that was meant, before anything is registered."""
    done = machine.container(*binding, image, "--arch", "arm,arm46")
    assert done.status == 2
    assert "arm64" in done.message
    assert machine.names() == []


def test_missing_emulator(machine: Machine, slim_image: str, binding: Binding) -> None:
    """For an architecture without an emulator in the image: exit status 1, and the way to get one."""
    done = machine.container(*binding, slim_image, "--arch", "arm64")
    assert done.status == 1
    assert "this image contains no emulator for aarch64: build the target binfmtd" in done.stderr
    assert machine.names() == []


def test_without_privileges(machine: Machine, image: str) -> None:
    """With binfmt_misc bound in, a container needs neither --privileged nor any capability."""
    bind = f"--volume={MOUNT_POINT}:/binfmt_misc"
    succeeded(machine.podman("run", "--rm", "--cap-drop=all", "--read-only", "--tmpfs=/run", bind, image))
    assert {"qemu-arm", "qemu-aarch64"} <= set(machine.names())


def test_emulators_of_the_host(machine: Machine, slim_image: str, binding: Binding) -> None:
    """``slim`` registers an emulator that is bound into it."""
    emulator = shutil.which("qemu-aarch64")
    assert emulator is not None
    succeeded(machine.container(*binding, f"--volume={emulator}:/usr/bin/qemu-aarch64:ro", slim_image))
    assert machine.names() == ["qemu-aarch64"]


def test_runc(start_machine: StartMachine, image: str) -> None:
    """runc refuses a bind inside of /proc; bound in elsewhere, and not at all, works with it as well."""
    if shutil.which("runc") is None:
        pytest.skip("runc is not here: `apt-get install runc`")
    machine = start_machine(runtime="runc", cgroups=True)
    refused = machine.container(f"--volume={MOUNT_POINT}:{MOUNT_POINT}", image)
    assert "cannot be mounted because it is inside /proc" in refused.stderr
    for way in ([f"--volume={MOUNT_POINT}:/binfmt_misc"], machine.as_first_namespace):
        succeeded(machine.container(*way, image, "--arch", "arm,arm64"))
        assert set(machine.names()) == CHOSEN
        assert machine.run("sh", "-c", f"echo -1 > {MOUNT_POINT}/status").status == 0
