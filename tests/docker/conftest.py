"""For tests with a real Docker Engine: the images, built by it as the README says, and engines to run them on.

The engines use one data directory, one after the other.  So the images are built once for all tests, and the next run
finds Docker's cache in build/docker.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.docker_images import BUILD, DATA, NEEDED, build_images, copy_checkout, name_images
from support.engine import Engine, StartEngine
from support.foreign_tree import arm64_archive, riscv64_archive
from support.required import require


@pytest.fixture(scope="session")
def _docker() -> None:
    require("test-docker", (*NEEDED, "docker-registry"), "an engine has all users")


@pytest.fixture(scope="session")
def checkout(_docker: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the files that a commit would have now, in which the lines of the documents run."""
    return copy_checkout(tmp_path_factory.mktemp("checkout") / "binfmtd")


@pytest.fixture(scope="session")
def images(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the images with the README's lines; return Docker's data directory, which has them."""
    with Engine(tmp_path_factory.mktemp("build") / "engine", DATA) as engine:
        build_images(engine, checkout)
        name_images(engine, "registry.example.org")  # in docs/ci.md
        for name, archive in (("arm64", arm64_archive(BUILD)), ("riscv64", riscv64_archive(BUILD))):
            engine.import_tree(archive, f"root-{name}", f"linux/{name}")
        engine.checked("image", "prune", "--force")
    return DATA


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
