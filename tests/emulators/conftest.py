"""For tests of the store of emulators with real registries, archives and packages; each has a store of its own."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.instance import Instance, UnavailableError
from support.layouts import Layout
from support.registry import Registry
from support.required import unavailable
from support.stores import StoreCli

from binfmtd.cli.store.choice import name_of
from binfmtd.host.facts import native_header

NEEDED = ("skopeo", "docker-registry", "dpkg-deb", "zstd")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.emulators)


@pytest.fixture
def instance() -> Iterator[Instance]:
    try:
        with Instance() as instance:
            yield instance
    except UnavailableError as error:
        unavailable(str(error))


@pytest.fixture(scope="session", autouse=True)
def _needs() -> None:
    if missing := [program for program in NEEDED if shutil.which(program) is None]:
        unavailable(f"not here: {', '.join(missing)}; `make test-emulators` installs them")
    if name_of(native_header()) != "x86_64":
        pytest.skip("the packages and images of these tests are for amd64")


@pytest.fixture
def store(tmp_path: Path) -> StoreCli:
    return StoreCli(tmp_path)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """Yield a registry without credentials, for all tests of a module."""
    with Registry(tmp_path_factory.mktemp("registry") / "registry") as started:
        yield started


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """Return an empty layout, in which a test makes its images."""
    return Layout(tmp_path / "layout")


@pytest.fixture
def start_registry(tmp_path: Path) -> Iterator[Callable[..., Registry]]:
    """Yield a function that starts a registry of the test's own."""
    started: list[Registry] = []

    def start(**options: bool) -> Registry:
        started.append(Registry(tmp_path / f"registry-{len(started)}", **options))
        return started[-1]

    yield start
    for each in started:
        each.close()
