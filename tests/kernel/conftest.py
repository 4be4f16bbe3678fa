"""Fixtures for tests on the real kernel: a private instance of binfmt_misc, and the daemon in it."""

import os
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.cli import Cli
from support.daemon import Daemon, StartDaemon
from support.instance import Instance, LentOutError, UnavailableError
from support.log_events import undocumented
from support.open_directory import open_directory as opened

# These take more than half of the time of all kernel tests. `make test` leaves them out, `.ci/run` does not.
SLOW = {
    "doctor",
    "test_binfmt.py",
    "test_binfmt_existing.py",
    "test_builds.py",
    "test_causes.py",
    "test_chaos.py",
    "test_cli_apply.py",
    "test_cli_arch.py",
    "test_cli_check.py",
    "test_cli_configure.py",
    "test_cli_emulators.py",
    "test_cli_explain.py",
    "test_cli_export.py",
    "test_cli_pause.py",
    "test_cli_plan.py",
    "test_cli_probe.py",
    "test_cli_probe_deep.py",
    "test_cli_reload.py",
    "test_cli_sandbox.py",
    "test_cli_sandbox_emulators.py",
    "test_cli_status.py",
    "test_cli_status_watch.py",
    "test_drop_ins.py",
    "test_execute_only.py",
    "test_explain_oracle.py",
    "test_failover.py",
    "test_foreign.py",
    "test_hardships.py",
    "test_json.py",
    "test_lifetime.py",
    "test_little.py",
    "test_looking.py",
    "test_metrics.py",
    "test_page.py",
    "test_persistent.py",
    "test_privileges.py",
    "test_probing.py",
    "test_restore.py",
    "test_sandbox_users.py",
    "test_script_interpreters.py",
    "test_settings.py",
    "test_upgraded_package.py",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if SLOW & {item.path.name, item.path.parent.name}:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def _instances() -> bool:
    """Return True if all tests share one instance, the machine's own, which is lent to one test after another.

    Skips if this machine has no instance to give. In CI that fails, because nothing would be tested.
    """
    try:
        with Instance() as instance:
            return instance.lent
    except UnavailableError as error:
        if os.environ.get("CI"):
            pytest.fail(str(error))
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def private_instances(_instances: bool) -> None:
    """Skip if all tests share one instance: for tests of features that only instances of user namespaces have."""
    if _instances:
        pytest.skip("user namespaces have instances of their own from Linux 6.7 on")


@pytest.fixture
def lent_instance(_instances: bool, instance: Instance) -> Instance:
    """Return the machine's own instance, in the first user namespace: for tests of what happens only on a host."""
    if not _instances:
        pytest.skip("takes a machine's own instance, which only a virtual machine of `make kernels` lends out")
    return instance


def _make() -> Instance:
    try:
        return Instance()
    except LentOutError as error:
        pytest.skip(str(error))


@pytest.fixture
def instance(_instances: bool) -> Iterator[Instance]:
    """Yield an empty instance that only this test uses."""
    with _make() as instance:
        yield instance


@pytest.fixture(scope="module")
def module_instance(_instances: bool) -> Iterator[Instance]:
    """Yield an instance that the tests of one module share; each of them leaves it as it found it."""
    with _make() as instance:
        yield instance


@pytest.fixture
def everybody() -> Iterator[Instance]:
    """Yield an instance in whose namespace all users have the same user ids as outside."""
    if os.geteuid() != 0:
        pytest.skip("only root has users other than itself")
    with Instance(everybody=True) as instance:
        yield instance


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """Yield a directory that all users may read."""
    with opened() as directory:
        yield directory


@pytest.fixture
def cli(instance: Instance, tmp_path: Path) -> Cli:
    """Return the command line in the instance, with a state directory of its own."""
    return Cli(instance, tmp_path)


@pytest.fixture
def _cli_of_daemon(cli: Cli, tmp_path: Path) -> None:
    """Give the command line the state directory of the daemon that ``start_daemon`` starts."""
    cli.state_directory = tmp_path / "daemon" / "state"


@pytest.fixture
def bin_directory(tmp_path: Path) -> Path:
    """Return a directory to which only its owner can write."""
    directory = tmp_path / "bin"
    directory.mkdir(mode=0o755)
    return directory


@pytest.fixture
def port() -> Iterator[int]:
    """Yield a free port.

    It stays bound, without listening: another process that asks for any port gets another one, and one that asks for
    this port, with SO_REUSEADDR as servers do, can listen there.
    """
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        yield int(holder.getsockname()[1])


@pytest.fixture
def make_instance(_instances: bool) -> Iterator[Callable[[], Instance]]:
    """Yield a function that makes one more instance, for tests that need several."""
    made: list[Instance] = []

    def make() -> Instance:
        made.append(_make())
        return made[-1]

    yield make
    for instance in made:
        instance.close()


@pytest.fixture
def start_daemon(instance: Instance, tmp_path: Path) -> Iterator[StartDaemon]:
    """Yield ``start(config, options, directory, ready=True, environment=None)``, which starts a daemon in ``instance``.

    A daemon in the same directory has the same state. All daemons are killed at the end; the log of a failed test is
    shown. Every event that a daemon logged in any test has to be in docs/logging.md.
    """
    started: list[Daemon] = []

    def start(
        config: str | None = "",
        options: tuple[str, ...] = (),
        directory: str = "daemon",
        *,
        ready: bool = True,
        environment: dict[str, str] | None = None,
        stderr: int | None = None,
        python: str = sys.executable,
    ) -> Daemon:
        daemon = Daemon(instance, tmp_path / directory, config, options, environment, python, stderr)
        started.append(daemon)
        if ready:
            daemon.wait_ready()
        return daemon

    yield start
    for daemon in started:
        daemon.close()
        # pytest shows this output if the test failed
        print(f"log of daemon {daemon.pid}, which ended with {daemon.process.returncode}:\n{daemon.log_text()}")
    said = [line for daemon in started for line in daemon.logs() if line["event"] is not None]
    assert not {missing for line in said if (missing := undocumented(line))}, "docs/logging.md lacks these"
