"""systemd-nspawn in systemd-nspawn, both booted: whose binfmt_misc serves the inner container, and what binfmtd says.

The outer machine has the user namespace that ``--private-users=pick`` makes, and its own instance, on which binfmtd
runs.  The inner container has a user namespace in it, with the same ids (``--private-users=identity``).
"""

from collections.abc import Iterator

import pytest
from support.booted import CONFIG, ENTRY, MOUNT_POINT, UNIT, Booted
from support.nested import (
    INNER,
    MACHINES,
    MASKED,
    NESTING_PACKAGES,
    ONE_HANDLER,
    OUTER_OPTIONS,
    InnerNspawn,
    make_nesting_root,
)
from support.nested_checks import (
    assert_follows_the_remedy,
    assert_not_mounted,
    assert_repairs,
    inodes,
    repairs,
    use_own_instance,
    wait_repaired,
)
from support.required import Needs

pytestmark = pytest.mark.hosts

OUTER_STATUS, INNER_STATUS = 42, 52  # of the emulators; `probe` and `doctor` take 42 for a working one
BOUND = "/binfmt_misc"
BIND = f"--bind={MOUNT_POINT}:{BOUND}"


@pytest.fixture(scope="module")
def outer(needs: Needs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Booted]:
    """Yield the outer machine, where the service runs, with the root directory of the inner container."""
    needs("systemd-nspawn", "mmdebstrap", "dpkg-deb", "make")
    directory = tmp_path_factory.mktemp("nspawn")
    with Booted(directory, packages=NESTING_PACKAGES, masked=MASKED, nspawn=OUTER_OPTIONS) as machine:
        make_nesting_root(machine.root / f"{MACHINES}/{INNER}".lstrip("/"), INNER_STATUS)
        machine.install_emulator(OUTER_STATUS)
        machine.write(CONFIG, ONE_HANDLER)
        machine.systemctl("start", UNIT)
        yield machine


@pytest.fixture
def inner(outer: Booted) -> Iterator[InnerNspawn]:
    """Yield a container that has just booted."""
    with InnerNspawn(outer) as container:
        yield container


def test_the_handlers_of_the_outer_machine(outer: Booted, inner: InnerNspawn) -> None:
    """Without an instance of its own the outer daemon serves the inner container; the messages name what helps."""
    assert [system.answer() for system in (outer, inner)] == [OUTER_STATUS, OUTER_STATUS]
    assert_not_mounted(inner, BIND)
    assert_repairs(outer)
    assert inner.answer() == OUTER_STATUS
    before = inodes(outer)
    assert_follows_the_remedy(inner)
    assert [system.answer() for system in (outer, inner)] == [OUTER_STATUS, INNER_STATUS]
    assert inodes(outer) == before


def test_the_instance_of_the_inner_container(outer: Booted, inner: InnerNspawn) -> None:
    """Its own instance serves it alone; what is flushed in it, and its end, leave the outer machine's entries."""
    before, repaired = inodes(outer), repairs(outer)
    use_own_instance(inner)
    assert_repairs(inner)
    assert [system.answer() for system in (outer, inner)] == [OUTER_STATUS, INNER_STATUS]
    inner.run("systemctl", "poweroff")  # systemd-binfmt removes all entries of its instance
    inner.wait_end()
    assert (inodes(outer), repairs(outer), outer.answer()) == (before, repaired, OUTER_STATUS)


def test_the_instance_of_the_outer_machine_bound_in(outer: Booted) -> None:
    """Root of the inner container may write to it, as it is the same user; the outer daemon repairs that."""
    with InnerNspawn(outer, (BIND,)) as inner:
        assert ENTRY in inner.run("ls", BOUND).stdout.split()
        doctor = inner.run("binfmtd", "doctor", "--json").json
        (owner,) = [found for found in doctor["not_seen"] if found["section"] == "user_namespace"]
        assert "the owner of this instance cannot be determined" in owner["text"]
        before = repairs(outer)
        assert inner.run("sh", "-c", f"echo -1 >{BOUND}/status").status == 0
        wait_repaired(outer, before)
        assert inner.answer() == OUTER_STATUS
        kept = inodes(outer)
    assert (inodes(outer), outer.answer()) == (kept, OUTER_STATUS)
