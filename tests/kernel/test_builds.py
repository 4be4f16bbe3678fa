"""A build survives the benchmark's disturbances, in small numbers, beside two processes that execute."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from benchmarks.contestants import INTERPRETERS
from benchmarks.disturbances import (
    ALL_UNINSTALLED,
    ANOTHER_INTERPRETER,
    ARCHITECTURE,
    BY_NAME,
    EMULATORS,
    FLUSH,
    NAME,
    RESET_BY_NAME,
    SWITCHED_OFF,
    UNMOUNTED,
    Disturbance,
    Host,
)
from support.daemon import StartDaemon
from support.exec_loop import ExecLoop, Outcome
from support.instance import Instance
from support.programs import foreign_program
from support.waiting import wait_until

from binfmtd.catalog.architectures import CATALOG
from binfmtd.model.stand_in import stand_in_name

STATUS = 42  # the exit status of the program
REPETITIONS = 3  # ten repairs in ten seconds would be contention
WRITES = (*BY_NAME, ANOTHER_INTERPRETER, ALL_UNINSTALLED, RESET_BY_NAME, FLUSH, SWITCHED_OFF, UNMOUNTED)


@pytest.fixture
def host(instance: Instance, tmp_path: Path) -> Host:
    if missing := [path for path in INTERPRETERS.values() if not Path(path).exists()]:
        pytest.skip(f"{missing[0]} is not here: install qemu-user")
    return Host(instance, tmp_path)


@contextmanager
def executing(host: Host) -> Iterator[Callable[[], list[list[Outcome]]]]:
    """Execute in two processes; yield a function that ends them and returns their outcomes."""
    program = foreign_program(host.directory / "program", CATALOG[ARCHITECTURE])
    with ExitStack() as stack:
        loops = [stack.enter_context(ExecLoop(host.instance, program)) for _ in range(2)]
        yield lambda: [loop.stop() for loop in loops]


@pytest.mark.parametrize("kind", BY_NAME, ids=lambda kind: kind.what)
def test_by_name(host: Host, start_daemon: StartDaemon, kind: Disturbance) -> None:
    """By default no execution fails, whatever another program does to an entry by its name."""
    start_daemon(host.config)
    both = {entry for name in EMULATORS for entry in (name, stand_in_name(name))}
    with executing(host) as stop:
        for _ in range(REPETITIONS):
            kind.do(host)
            wait_until(lambda: both <= set(host.instance.all_names()), what="all entries")
            wait_until(lambda: host.instance.read(NAME).startswith("enabled"), what="an entry that is enabled")
        outcomes = stop()
    assert only_successes(outcomes), outcomes


def test_sealed(host: Host, start_daemon: StartDaemon) -> None:
    """In a sealed instance no execution fails, not even during a flush or an unmount."""
    start_daemon("sealed = true\n" + host.config)
    with executing(host) as stop:
        for kind in WRITES:
            kind.do(host)
            host.mount()
        outcomes = stop()
    assert only_successes(outcomes), outcomes


def only_successes(outcomes: Sequence[Sequence[Outcome]]) -> bool:
    return [[status for status, _ in each] for each in outcomes] == [[STATUS]] * 2
