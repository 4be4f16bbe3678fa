"""The image ``binfmt`` behind docker/setup-qemu-action, with Docker Engine: the action's calls, in its order.

Source: src/main.ts of docker/setup-qemu-action v3.6: pull, image inspect, --version, --uninstall (input `reset`),
--install, and once more without arguments for the platforms.
"""

import json
from collections.abc import Iterator

import pytest
from support.engine import Engine

pytestmark = pytest.mark.docker

IMAGE = "localhost:5000/binfmt:latest"


@pytest.fixture
def published(engine: Engine) -> Iterator[str]:
    """Publish the image in a registry on the engine's machine, and remove it from the engine; return its name."""
    with engine.registry():
        engine.checked("tag", "binfmt", IMAGE)
        engine.checked("push", IMAGE)
        engine.checked("image", "rm", IMAGE)
        yield IMAGE
        engine.docker("image", "rm", IMAGE)


def test_its_calls(engine: Engine, published: str) -> None:
    """Each call succeeds, and what the last one prints is what the action reads."""
    engine.checked("pull", published)
    engine.checked("image", "inspect", published)
    run = ("run", "--rm", "--privileged", published)
    assert " qemu/" in engine.checked(*run, "--version").stderr
    engine.checked(*run, "--uninstall", "qemu-*")
    engine.checked(*run, "--install", "arm64,riscv64")
    answer = json.loads(engine.checked(*run).stdout.strip())
    assert {"linux/amd64", "linux/arm64", "linux/riscv64"} <= set(answer["supported"])
    assert {"qemu-aarch64", "qemu-riscv64"} == set(answer["emulators"])
    assert set(engine.instance.names()) == {"qemu-aarch64", "qemu-riscv64"}


def test_again_on_the_same_runner(engine: Engine) -> None:
    """The next job of a runner finds the entries, and leaves them; builds that run meanwhile see no gap."""
    install = ("run", "--rm", "--privileged", "binfmt", "--install", "all")
    engine.checked(*install)
    before = engine.instance.inodes()
    engine.checked(*install)
    assert engine.instance.inodes() == before
