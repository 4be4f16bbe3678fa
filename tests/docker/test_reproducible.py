"""Two builds by BuildKit make one image: its digest depends on the commit, the base and the packages alone."""

import json
import tarfile
from pathlib import Path

import pytest
from support import images as built
from support.cli import CHECKOUT
from support.docker_images import BASE, base_archive
from support.engine import Engine

pytestmark = pytest.mark.docker

CONTAINERD = {"features": {"containerd-snapshotter": True}}  # the other store exports no images


def digest(archive: Path) -> str:
    with tarfile.open(archive) as tar:
        stream = tar.extractfile("index.json")
        assert stream is not None
        found: str = json.load(stream)["manifests"][0]["digest"]
    return found


@pytest.mark.usefixtures("_docker")
def test_two_builds_have_one_digest(tmp_path: Path) -> None:
    """Two builds of slim without Docker's cache, as a release makes them, have one digest.

    They get this machine's certificates as the secret ``ca``, which BuildKit passes on like podman.
    """
    certificates = built.pip_settings().get("cert")
    secret = [f"--secret=id=ca,src={certificates}"] if certificates else []
    with Engine(tmp_path / "engine", tmp_path / "data", settings=CONTAINERD) as engine:
        engine.import_tree(base_archive(), BASE, "linux/amd64")
        archives = [engine.directory / f"{number}.tar" for number in (1, 2)]
        for archive in archives:
            command = ["packaging/image/build", "docker", "slim", "slim", "--no-cache", *secret]
            done = engine.run("env", f"OUTPUT=type=oci,dest={archive}", *command, directory=CHECKOUT)
            assert done.status == 0, done.stderr[-4000:]
        assert digest(archives[0]) == digest(archives[1])
