"""Builds for other platforms by a real Docker Engine: BuildKit, buildx and the containerd image store.

Each RUN executes thousands of foreign programs and checks their results, so a build that passes has run them.
"""

import json
import shutil
from pathlib import Path

import pytest
from support.documents import fragments
from support.engine import Engine, StartEngine

pytestmark = pytest.mark.docker

CONTAINERD = {"features": {"containerd-snapshotter": True}}

ARM64_WORK = r"""
RUN test "$(uname -m)" = aarch64
RUN seq 20000 | awk '{ s += $1 } END { exit s != 200010000 }' \
 && seq 50000 >/tmp/numbers && gzip -k /tmp/numbers && tar -cf /tmp/archive.tar -C /tmp numbers.gz \
 && mkdir /tmp/x && tar -xf /tmp/archive.tar -C /tmp/x && gunzip /tmp/x/numbers.gz && cmp /tmp/numbers /tmp/x/numbers
RUN i=0; while [ $i -lt 1000 ]; do /bin/true || exit 1; i=$((i + 1)); done
"""
RISCV64_WORK = """
RUN ["/bin/work", "2000"]
"""
# The pattern of Docker's documentation for stages that differ by platform.
DOCKERFILE = f"""
FROM root-arm64 AS for-arm64
{ARM64_WORK}
FROM root-riscv64 AS for-riscv64
{RISCV64_WORK}
FROM for-$TARGETARCH
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a directory with a Dockerfile for both platforms."""
    directory = tmp_path / "project"
    directory.mkdir()
    (directory / "Dockerfile").write_text(DOCKERFILE)
    return directory


@pytest.fixture(scope="session")
def stored(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy the images to an engine that keeps them in containerd's store; return its data directory."""
    data, names = images.with_name("data-containerd"), ("registry.example.org/binfmtd", "registry.example.org/binfmt")
    with Engine(tmp_path_factory.mktemp("save") / "engine", images) as engine:
        archive = engine.directory / "images.tar"
        engine.checked("save", "--output", str(archive), *names, "root-arm64", "root-riscv64")
    with Engine(tmp_path_factory.mktemp("load") / "engine", data, settings=CONTAINERD) as engine:
        shutil.move(archive, engine.directory / archive.name)
        engine.remove_containers()
        engine.checked("load", "--input", str(engine.directory / archive.name))
    return data


@pytest.fixture
def containerd(start_engine: StartEngine, stored: Path) -> Engine:
    """Return an engine whose images are in containerd's store, which has images for several platforms."""
    return start_engine(stored, settings=CONTAINERD)


def test_platform(engine: Engine, project: Path) -> None:
    """``docker build --platform linux/arm64`` fails without a handler, and passes after one ``docker run``."""
    build = ("build", "--no-cache", "--platform", "linux/arm64", "--tag", "built", ".")
    failed = engine.docker(*build, directory=project)
    assert failed.status != 0
    assert "exec format error" in failed.stderr
    engine.checked("run", "--rm", "--privileged", "binfmtd", "--arch", "arm64")
    engine.checked(*build, directory=project)
    assert json.loads(engine.checked("image", "inspect", "built").stdout)[0]["Architecture"] == "arm64"
    ran = engine.checked("run", "--rm", "--platform", "linux/arm64", "--network", "none", "built", "uname", "-m")
    assert ran.stdout == "aarch64\n"


def test_buildx_for_two_platforms(containerd: Engine, project: Path) -> None:
    """``docker buildx build --platform linux/arm64,linux/riscv64`` makes one image for both, and each part runs."""
    containerd.checked("run", "--rm", "--privileged", "registry.example.org/binfmtd", "--arch", "arm64,riscv64")
    build = ("buildx", "build", "--no-cache", "--platform", "linux/arm64,linux/riscv64", "--tag", "both", ".")
    containerd.checked(*build, directory=project)
    run = ("run", "--rm", "--network", "none", "--platform")
    assert containerd.checked(*run, "linux/arm64", "both", "uname", "-m").stdout == "aarch64\n"
    assert containerd.checked(*run, "linux/riscv64", "both", "/bin/work", "10").stdout == "work: 10 executions\n"


def test_the_lines_of_the_page_on_ci(containerd: Engine, project: Path) -> None:
    """Each command of docs/ci.md exits with 0; its builds are those of a project for these platforms."""
    (project / "Dockerfile").write_text(
        f"{DOCKERFILE}\nFROM scratch AS for-ppc64le\nCOPY Dockerfile /\nFROM for-$TARGETARCH\n"
    )
    lines = [fragment.text for fragment in fragments("docs/ci.md") if fragment.reason is None]
    assert [line for line in lines if line.startswith("docker buildx build ")]
    containerd.checked("run", "--rm", "--privileged", "registry.example.org/binfmtd", "--arch", "riscv64")
    containerd.checked("run", "--rm", "--privileged", "registry.example.org/binfmt", "--install", "arm64")
    for line in lines:
        containerd.run_line(line, project)
