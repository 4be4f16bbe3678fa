"""For tests on the real kernel: an instance of binfmt_misc of their own, and the daemon in it."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.daemon import Daemon
from support.instance import Instance, UnavailableError


@pytest.fixture(scope="session")
def _instances() -> None:
    """Skip where this machine does not lend out instances; in CI that fails, or nothing would be tested."""
    try:
        Instance().close()
    except UnavailableError as error:
        if os.environ.get("CI"):
            pytest.fail(str(error))
        pytest.skip(str(error))


@pytest.fixture
def instance(_instances: None) -> Iterator[Instance]:
    """Yield an empty instance that is this test's alone."""
    with Instance() as instance:
        yield instance


@pytest.fixture(scope="module")
def module_instance(_instances: None) -> Iterator[Instance]:
    """Yield an instance that the tests of one module share: for tests that leave it as they found it."""
    with Instance() as instance:
        yield instance


@pytest.fixture
def make_instance(_instances: None) -> Iterator[Callable[[], Instance]]:
    """Yield what makes one more instance, for tests that need several."""
    made: list[Instance] = []

    def make() -> Instance:
        made.append(Instance())
        return made[-1]

    yield make
    for instance in made:
        instance.close()


StartDaemon = Callable[..., Daemon]


@pytest.fixture
def start_daemon(instance: Instance, tmp_path: Path) -> Iterator[StartDaemon]:
    """Yield ``start(config, options, directory, ready=True, environment=None)``, which starts a daemon in ``instance``.

    The same directory again means the same state. It is killed at the end; of a failed test its log is shown.
    """
    started: list[Daemon] = []

    def start(
        config: str = "",
        options: tuple[str, ...] = (),
        directory: str = "daemon",
        *,
        ready: bool = True,
        environment: dict[str, str] | None = None,
    ) -> Daemon:
        daemon = Daemon(instance, tmp_path / directory, config, options, environment)
        started.append(daemon)
        if ready:
            daemon.wait_ready()
        return daemon

    yield start
    for daemon in started:
        daemon.close()
        # pytest shows it where the test failed
        print(f"log of daemon {daemon.pid}, which ended with {daemon.process.returncode}:\n{daemon.log_text()}")
