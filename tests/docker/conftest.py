"""For tests with a real Docker Engine: the images, built by it as the README says, and engines to run them on.

The engines use one data directory, one after the other.  So the images are built once for all tests, and the next run
finds Docker's cache in build/docker.
"""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.cli import CHECKOUT
from support.documents import fragments
from support.engine import OUR_IMAGES, Engine
from support.foreign_tree import CROSS_COMPILER, arm64_archive, riscv64_archive
from support.images import DEBOOTSTRAP, pip_settings
from support.instance import Instance, UnavailableError

NEEDED = ("dockerd", "docker", "docker-registry", "slirp4netns", "iptables", "mmdebstrap", CROSS_COMPILER)
BUILD = CHECKOUT / "build" / "docker"
BASE = "debian:trixie-slim"  # of the Containerfile

StartEngine = Callable[..., Engine]


def _unavailable(reason: str) -> None:
    """Skip; in CI fail, or nothing would be tested."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def _docker() -> None:
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    if missing := [program for program in NEEDED if shutil.which(program, path=path) is None]:
        _unavailable(f"not here: {', '.join(missing)}; `make test-docker` installs them")
    if os.geteuid() != 0:
        _unavailable("an engine has all users, which takes root: run this as root")
    try:
        Instance(everybody=True).close()
    except UnavailableError as error:
        _unavailable(str(error))


@pytest.fixture(scope="session")
def checkout(_docker: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the files that a commit would have now, in which the lines of the documents run."""
    copy = tmp_path_factory.mktemp("checkout") / "binfmtd"
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=True)
    for name in filter(None, listed.stdout.split("\0")):
        if (CHECKOUT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(CHECKOUT / name, copy / name)
    return copy


@pytest.fixture(scope="session")
def images(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the images with the README's lines; return Docker's data directory, which has them."""
    data = BUILD / "data"
    with Engine(tmp_path_factory.mktemp("build") / "engine", data) as engine:
        engine.remove_containers()
        if engine.docker("image", "inspect", BASE).status != 0:
            engine.import_tree(_base(), BASE, "linux/amd64")
        for fragment in fragments("README.md"):
            if fragment.text.startswith("docker build "):
                engine.run_line(fragment.text, checkout)
        for name in OUR_IMAGES:
            engine.checked("tag", name, f"registry.example.org/{name}")  # the name in docs/ci.md
        for name, archive in (("arm64", arm64_archive(BUILD)), ("riscv64", riscv64_archive(BUILD))):
            engine.import_tree(archive, f"root-{name}", f"linux/{name}")
        engine.checked("image", "prune", "--force")
    return data


@pytest.fixture
def start_engine(images: Path, tmp_path: Path) -> Iterator[StartEngine]:
    """Yield a function that starts an engine with the images, with the options of ``Engine``; it ends with the test."""
    started: list[Engine] = []

    def start(data: Path = images, **options: Any) -> Engine:
        engine = Engine(tmp_path / f"engine-{len(started)}", data, **options)
        started.append(engine)
        return engine

    yield start
    for engine in started:
        if engine.runs:
            engine.remove_containers()
            engine.close()


@pytest.fixture
def engine(start_engine: StartEngine) -> Engine:
    """Return an engine on a machine that has binfmt_misc mounted, with nothing in it."""
    return start_engine()


@pytest.fixture(scope="session")
def arm64(_docker: None) -> Path:
    """Return the archive of a root directory with a static busybox for arm64."""
    return arm64_archive(BUILD)


def _base() -> Path:
    """Return the archive of a base as bare as Debian's slim image, with the settings that pip needs on this machine."""
    BUILD.mkdir(parents=True, exist_ok=True)
    archive = BUILD / "base.tar"
    settings, hooks = pip_settings(), []
    if certificates := settings.pop("cert", None):
        settings["cert"] = "/usr/local/share/pip.crt"
        hooks.append(f"--customize-hook=install -m 644 {certificates} $1{settings['cert']}")
    lines = "\\n".join(["[global]", *(f"{key} = {value}" for key, value in settings.items())])
    hooks.append(f"--customize-hook=printf '{lines}\\n' >$1/etc/pip.conf")
    subprocess.run([*DEBOOTSTRAP, *hooks, str(archive)], check=True)
    return archive
