"""The second look of a pass reads only what was written, and says so when that is not enough."""

import os
from collections.abc import Iterator

import pytest
from support.instance import Instance

from binfmtd.kernel.instance import Instance as Opened
from binfmtd.kernel.instance import Observer
from binfmtd.kernel.mount import Mounted
from binfmtd.model.entry import ObservedState

FLUSH = "status"
ENTRIES = 600  # more than a slice has


@pytest.fixture
def opened(instance: Instance) -> Iterator[Opened]:
    """Return an instance with 600 entries, opened."""
    for number in range(ENTRIES):
        instance.register(b":e%d:E::e%d::/usr/bin/true:" % (number, number))
    with Opened(Mounted(str(instance.directory), os.stat(instance.directory).st_dev, read_only=False)) as found:
        yield found


@pytest.fixture
def before(observer: Observer, opened: Opened) -> ObservedState:
    """Return the state at the first look."""
    return observer.observe(opened)


@pytest.fixture
def observer() -> Observer:
    """Return one that has not looked yet."""
    return Observer()


def line(name: bytes, extension: bytes) -> bytes:
    return b":%s:E::%s::/usr/bin/true:" % (name, extension)


def test_all_kinds_of_writes(instance: Instance, opened: Opened, observer: Observer, before: ObservedState) -> None:
    """After entries were registered, replaced, disabled and removed, both looks find the same."""
    instance.register(line(b"new", b"new"))
    instance.remove("e5")
    instance.register(line(b"e5", b"other"))
    instance.write("e7", b"0")
    instance.remove("e9")
    instance.write("status", b"0")
    written = {"new", "e5", "e7", "e9", "never"}
    found = observer.refresh(opened, before, written)
    assert found == Observer().observe(opened)
    assert found is not None
    assert (found.by_name, found.enabled) == (Observer().observe(opened).by_name, ENTRIES - 1)


def test_the_look_after_it(instance: Instance, opened: Opened, observer: Observer, before: ObservedState) -> None:
    """The next look at everything finds what the second look did not read."""
    instance.register(line(b"new", b"new"))
    instance.remove("e3")
    found = observer.refresh(opened, before, {"new"})
    assert found is not None
    assert "e3" in found.by_name
    assert observer.observe(opened, set()) == Observer().observe(opened)


def test_a_flush_since_the_first_look(
    instance: Instance, opened: Opened, observer: Observer, before: ObservedState
) -> None:
    """If no older entry exists any more, only a look at everything shows what is gone."""
    instance.remove(FLUSH)
    instance.register(line(b"new", b"new"))
    assert observer.refresh(opened, before, {"new"}) is None
    assert [entry.name for entry in observer.observe(opened, set()).entries] == ["new"]


def test_an_instance_that_was_empty(instance: Instance, observer: Observer) -> None:
    """Without any older entry nothing is missing."""
    with Opened(Mounted(str(instance.directory), os.stat(instance.directory).st_dev, read_only=False)) as opened:
        before = observer.observe(opened)
        instance.register(line(b"new", b"new"))
        assert observer.refresh(opened, before, {"new"}) == Observer().observe(opened)


def test_slices(opened: Opened) -> None:
    """A scan yields at least once for each 200 entries that it lists, and for each 10 that it reads."""
    observer = Observer()
    assert sum(1 for _ in observer.scan(opened, None)) >= ENTRIES // 200 + ENTRIES // 10
    assert ENTRIES // 200 <= sum(1 for _ in observer.scan(opened, set())) < ENTRIES // 10
