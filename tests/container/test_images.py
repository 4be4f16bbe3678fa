"""The images: their files, layers, labels and health checks."""

import json
from typing import Any

import pytest
from support import images
from support.containers import Machine
from support.instance import MOUNT_POINT

from binfmtd.catalog.architectures import CATALOG
from binfmtd.catalog.names import find

pytestmark = pytest.mark.container

# https://docs.docker.com/build/building/multi-platform/ and the platforms that tonistiigi/binfmt installs.
DOCKER = ("amd64", "386", "arm64", "arm", "riscv64", "ppc64le", "s390x", "mips64le", "mips64", "loong64")
MOST_BYTES = 319_000_000  # with all 33 emulators it had 638 MB
# The keys that the image specification of the OCI defines for images (annotations.md), by who knows their values.
KNOWN = {"title", "description", "authors", "licenses", "version", "base.name"}
OF_THE_BUILDER = {"created", "url", "documentation", "source", "revision", "vendor", "base.digest"}


def config(machine: Machine, image: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(machine.podman("image", "inspect", image).stdout)[0]
    return found


def files(machine: Machine, image: str, *directories: str) -> set[str]:
    listed = machine.container("--entrypoint=find", image, *directories, "-xdev", "-not", "-type", "d")
    assert listed.status == 0, listed.stderr
    return set(listed.stdout.splitlines())


def emulators(machine: Machine, image: str) -> set[str]:
    return {path for path in files(machine, image, "/usr/bin") if path.startswith("/usr/bin/qemu-")}


def test_only_emulated_images_have_emulators(machine: Machine, image: str, slim_image: str, binfmt_image: str) -> None:
    """With EMULATORS=all ``binfmtd`` and ``binfmt`` have one for every architecture, in one shared layer; slim none."""
    wanted = {f"/usr/bin/qemu-{name}" for name in CATALOG}
    assert emulators(machine, image) == wanted
    assert emulators(machine, slim_image) == set()
    layers, slim_layers, binfmt_layers = (
        config(machine, each)["RootFS"]["Layers"] for each in (image, slim_image, binfmt_image)
    )
    assert layers == binfmt_layers
    assert layers[:-1] == slim_layers


def test_the_port_of_metrics(machine: Machine, image: str, slim_image: str, binfmt_image: str) -> None:
    """It is exposed by the images whose command can be the daemon, and not by ``binfmt``, which has no such command."""
    exposed = [config(machine, each)["Config"].get("ExposedPorts") or {} for each in (image, slim_image, binfmt_image)]
    assert exposed == [{"9427/tcp": {}}, {"9427/tcp": {}}, {}]


def test_emulators_can_be_chosen(machine: Machine) -> None:
    """The build argument EMULATORS takes names of QEMU and of Debian; the image has those emulators and no other."""
    chosen = images.build("binfmtd", emulators="aarch64,armhf riscv64")
    assert emulators(machine, chosen) == {"/usr/bin/qemu-aarch64", "/usr/bin/qemu-arm", "/usr/bin/qemu-riscv64"}


def test_the_default_emulators(machine: Machine) -> None:
    """Without EMULATORS an image has the platforms that Docker names, and is at most half as large as it once was."""
    default = images.build("binfmtd", emulators=None)
    names = {find(platform).name for platform in DOCKER}
    assert names <= {path.removeprefix("/usr/bin/qemu-") for path in emulators(machine, default)}
    assert config(machine, default)["Size"] <= MOST_BYTES


@pytest.mark.usefixtures("_podman")
def test_an_unknown_emulator_ends_the_build() -> None:
    """A build with an unknown emulator fails, and its message names the emulator."""
    with pytest.raises(images.BuildError, match="there is no /usr/bin/qemu-vax; there are: /usr/bin/qemu-aarch64 "):
        images.build("binfmtd", emulators="vax", tries=1)


def test_nothing_of_the_build_is_left(machine: Machine, slim_image: str) -> None:
    """The image has no pip, no compiler, no package lists, and no logs and caches of the installation."""
    everything = files(machine, slim_image, "/")
    names = {path.rpartition("/")[2] for path in everything}
    assert not names & {"pip", "pip3", "ensurepip", "cc", "gcc", "make", "git"}
    assert not {path for path in everything if "/site-packages/pip" in path}
    for directory in ("/var/lib/apt/lists/", "/var/cache/apt/", "/var/log/apt/", "/root/.cache/", "/src/", "/build/"):
        assert not {path for path in everything if path.startswith(directory)}, directory


def test_layers_without_emulators_are_small(machine: Machine, slim_image: str) -> None:
    """The layers that slim adds to its base stay under 40 MB: Python, its library, and binfmtd."""
    history = json.loads(machine.podman("history", "--format=json", slim_image).stdout)
    base = json.loads(machine.podman("history", "--format=json", config_base(machine, slim_image)).stdout)
    assert sum(layer["size"] for layer in history) - sum(layer["size"] for layer in base) < 40_000_000


def config_base(machine: Machine, image: str) -> str:
    base: str = config(machine, image)["Labels"]["org.opencontainers.image.base.name"]
    return base


def test_starting_compiles_nothing(machine: Machine, image: str) -> None:
    """The image has all bytecode that the daemon needs: it starts fast, also on a read-only root."""
    config = machine.directory / "binfmtd.toml"
    config.write_text('architectures = ["arm"]')
    binds = [f"--volume={MOUNT_POINT}:/binfmt_misc", f"--volume={config}:/etc/binfmtd/binfmtd.toml:ro"]
    daemon = machine.start(*binds, image, "run")
    daemon.wait_healthy()
    changed = daemon.podman("diff").stdout.split()
    assert "/run/binfmtd" in changed
    assert not [path for path in changed if "__pycache__" in path]


@pytest.mark.parametrize("target", ["image", "slim_image", "binfmt_image"])
def test_labels(target: str, machine: Machine, request: pytest.FixtureRequest) -> None:
    """Each image has the OCI's labels, and those that every build knows have a value; a commit's are another test's."""
    labels = config(machine, request.getfixturevalue(target))["Labels"]
    found = {name.removeprefix("org.opencontainers.image."): value for name, value in labels.items()}
    assert found.keys() >= KNOWN | OF_THE_BUILDER
    assert {name for name, value in found.items() if value} >= KNOWN
    assert found["licenses"] == ("MIT" if target == "slim_image" else "MIT AND GPL-2.0-only")


def test_only_daemons_have_a_health_check(machine: Machine, image: str, slim_image: str, binfmt_image: str) -> None:
    """``binfmtd`` and ``slim`` have a health check, which asks the daemon; ``binfmt`` ends at once and has none."""
    for each in (image, slim_image):
        check = config(machine, each)["Healthcheck"]
        assert "status --check" in check["Test"][-1]
        assert check["StartInterval"] == 1_000_000_000  # nanoseconds
    assert config(machine, binfmt_image).get("Healthcheck", {}).get("Test") in (None, ["NONE"])
