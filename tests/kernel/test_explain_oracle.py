"""``explain`` predicts the kernel's choice, whatever is registered: the kernel is the oracle.

``make test`` does 500 examples with a fixed seed, ``make chaos`` 25,000 with a new seed each time.
"""

import errno
import secrets
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from support import Times
from support.executions import NATIVES, Executed, Registered, World, executed, registered
from support.programs import exits_with, waits

from binfmtd.host.exec_files import Programs
from binfmtd.model.execution import Execution, execute

Check = Callable[[Sequence[Registered], Sequence[Executed], bool], None]
EXAMPLES = 25_000
OF_ARGUMENTS = 5_000

SWITCHED_ON = st.sampled_from((True,) * 9 + (False,))


@pytest.fixture
def world(_instances: bool, tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path, [exits_with(number) for number in range(1, len(NATIVES) + 2)])
    yield world
    world.close()


@pytest.fixture
def waiting_world(_instances: bool, tmp_path: Path) -> Iterator[World]:
    """Yield a world whose programs wait, so that their arguments can be read."""
    world = World(tmp_path, [waits(number) for number in range(1, len(NATIVES) + 2)])
    yield world
    world.close()


def examples(request: pytest.FixtureRequest, number: int, check: Check) -> None:
    """Run so many examples; a failing one is shrunk, and shown with its seed."""
    chosen = request.config.getoption("--seed")
    start = secrets.randbelow(2**32) if chosen == "random" else int(chosen)
    asked = given(registered, executed, SWITCHED_ON)(check)
    suppressed = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much]
    rules = settings(max_examples=number, derandomize=False, database=None, suppress_health_check=suppressed)
    try:
        seed(start)(rules(asked))()
    except BaseException as error:
        error.add_note(f"to run it again: make chaos SEED={start}")
        raise


def models(world: World, entries: Sequence[Registered], files: Sequence[Executed], *, on: bool) -> list[Execution]:
    """Return the model's result for each file, in order, from the entries as binfmtd reads them."""
    world.register(entries, switched_on=on)
    observed = world.observe()
    programs = Programs("", frozenset)
    return [execute(path, observed, programs, _argv(each, path)) for each, path in put(world, files)]


def put(world: World, files: Sequence[Executed]) -> list[tuple[Executed, str]]:
    """Make the files and return them with their paths; of several with one name only the last."""
    return [(each, world.put(each)) for each in {each.name: each for each in files}.values()]


def _argv(each: Executed, path: str) -> tuple[str, ...]:
    return each.argv or (path,)


def outcome(world: World, execution: Execution) -> int | str:
    """Return the exit status or the errno's name that the model predicts."""
    if execution.failure is not None:
        return errno.errorcode[execution.failure.errno]
    return world.native(execution.steps[-1].path)


def test_the_kernels_choice(request: pytest.FixtureRequest, times: Times, world: World) -> None:
    """The model predicts which entry takes a file, what runs in the end, and with which errno it fails."""

    def check(entries: Sequence[Registered], files: Sequence[Executed], switched_on: bool) -> None:
        try:
            said = [outcome(world, each) for each in models(world, entries, files, on=switched_on)]
            placed = put(world, files)
            done = world.execute([path for _, path in placed], [_argv(each, path) for each, path in placed])
        finally:
            world.clear()
        assert said == done

    examples(request, times(EXAMPLES), check)


def test_the_arguments(request: pytest.FixtureRequest, times: Times, waiting_world: World) -> None:
    """The model predicts the argument vector of the final program, under all flags and through scripts."""
    world = waiting_world

    def check(entries: Sequence[Registered], files: Sequence[Executed], switched_on: bool) -> None:
        try:
            found = models(world, entries, files, on=switched_on)
            placed = put(world, files)
            argvs = [_argv(each, path) for each, path in placed]
            done = world.execute([path for _, path in placed], argvs, wait=False)
        finally:
            world.clear()
        said = [
            errno.errorcode[each.failure.errno] if each.failure else [list(each.argv), each.steps[-1].path]
            for each in found
        ]
        assert said == done

    examples(request, times(OF_ARGUMENTS), check)
