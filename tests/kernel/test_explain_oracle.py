"""The kernel is the oracle of ``explain``: what it chooses is what the model of it says, whatever is registered.

``make test`` does 500 examples that are always the same, ``make chaos`` 25,000 with another seed each time.
"""

import errno
import secrets
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from support.executions import NATIVES, Executed, Registered, World, executed, registered
from support.programs import exits_with, waits

from binfmtd.kernel.program import Programs
from binfmtd.model.execution import Execution, execute

Times = Callable[[int], int]
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
    """The same, and what is executed waits: so that its arguments can be read."""
    world = World(tmp_path, [waits(number) for number in range(1, len(NATIVES) + 2)])
    yield world
    world.close()


def examples(request: pytest.FixtureRequest, number: int, check: Check) -> None:
    """Run so many; a failing one is shrunk, and shown with the seed that makes it again."""
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
    """What explain's model says of each file, from what it sees of the instance; one path after the other."""
    world.register(entries, switched_on=on)
    observed = world.observe()
    programs = Programs("", frozenset)
    return [execute(path, observed, programs, _argv(each, path)) for each, path in put(world, files)]


def put(world: World, files: Sequence[Executed]) -> list[tuple[Executed, str]]:
    """Make the files, one for each name: the last."""
    return [(each, world.put(each)) for each in {each.name: each for each in files}.values()]


def _argv(each: Executed, path: str) -> tuple[str, ...]:
    return each.argv or (path,)


def outcome(world: World, execution: Execution) -> int | str:
    """What a program ends with that the model has found."""
    if execution.failure is not None:
        return errno.errorcode[execution.failure.errno]
    return world.native(execution.steps[-1].path)


def test_the_kernels_choice(request: pytest.FixtureRequest, times: Times, world: World) -> None:
    """Which entry takes a file, what runs in the end, and how it fails, are as the kernel has it."""

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
    """The argument vector that the program in the end gets, under all flags and through scripts, is the kernel's."""
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
