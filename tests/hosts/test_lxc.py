"""LXC in LXC: unprivileged containers that root starts, both booted; whose binfmt_misc serves, and what binfmtd says.

They run on a private host, on which binfmtd runs as well.
"""

from collections.abc import Iterator

import pytest
from support.booted import ENTRY, MOUNT_POINT, PROGRAM, UNIT
from support.nested import Lxc, LxcHost
from support.nested_checks import (
    HostDaemon,
    assert_follows_the_remedy,
    assert_not_mounted,
    assert_owner,
    assert_repairs,
    daemon_on,
    inodes,
    use_own_instance,
)
from support.required import Needs

pytestmark = pytest.mark.hosts

HOST, OUTER, INNER = 42, 51, 52  # `probe` and `doctor` take 42 for a working emulator
BOUND_IN = f"lxc.mount.entry = {MOUNT_POINT} {MOUNT_POINT.lstrip('/')} none bind 0 0\n"
OWN = f"lxc.mount.entry = binfmt_misc {MOUNT_POINT.lstrip('/')} binfmt_misc rw 0 0\n"


@pytest.fixture(scope="module")
def host(needs: Needs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LxcHost]:
    """Yield a host with the root directories of two containers."""
    needs("lxc-start", "newuidmap", "mmdebstrap", "make")
    with LxcHost(tmp_path_factory.mktemp("lxc") / "host") as host:
        host.make_roots(OUTER, INNER)
        yield host


@pytest.fixture(scope="module", autouse=True)
def daemon(host: LxcHost) -> Iterator[HostDaemon]:
    """Run the daemon on the host."""
    with daemon_on(host, HOST) as daemon:
        yield daemon


@pytest.fixture
def outer(host: LxcHost) -> Iterator[Lxc]:
    with Lxc(host) as container:
        yield container


@pytest.fixture
def inner(host: LxcHost, outer: Lxc) -> Iterator[Lxc]:
    """Yield a container in the container."""
    with Lxc(host, outer) as container:
        yield container


def host_answer(host: LxcHost, outer: Lxc) -> int:
    return host.run("sh", "-c", f"{outer.root}{PROGRAM}").status


def test_the_handlers_of_the_host(host: LxcHost, daemon: HostDaemon, outer: Lxc, inner: Lxc) -> None:
    """Without an instance of their own the host's daemon serves both; the messages name LXC's option and the mount."""
    for container in (outer, inner):
        assert container.answer() == HOST
        assert_not_mounted(container, BOUND_IN.strip())
    before = daemon.repairs()
    host.instance.remove("status")
    daemon.wait_repaired(before)
    assert [container.answer() for container in (outer, inner)] == [HOST, HOST]
    assert_follows_the_remedy(inner)
    assert [container.answer() for container in (outer, inner)] == [HOST, INNER]


def test_the_instance_of_the_outer_container(host: LxcHost, outer: Lxc, inner: Lxc) -> None:
    """The outer container's own instance serves both, and its daemon repairs it; the host keeps its own."""
    use_own_instance(outer)
    before = host.instance.all_inodes()
    assert_repairs(outer)
    assert [container.answer() for container in (outer, inner)] == [OUTER, OUTER]
    assert_not_mounted(inner, BOUND_IN.strip(), served=False)
    assert_owner(outer, "has an instance of its own")
    assert (host_answer(host, outer), host.instance.all_inodes()) == (HOST, before)


def test_the_instance_of_the_inner_container(outer: Lxc, inner: Lxc) -> None:
    """The inner container's own instance serves it alone; a flush in it, and its end, leave the outer's entries."""
    use_own_instance(outer)
    use_own_instance(inner)
    before = inodes(outer)
    assert_repairs(inner)
    assert [container.answer() for container in (outer, inner)] == [OUTER, INNER]
    assert_owner(inner, "has an instance of its own")
    inner.power_off()
    assert inner.run("true").status != 0, "it has ended"
    assert (inodes(outer), outer.show("StatusText"), outer.answer()) == (before, "1 handler in order", OUTER)


def test_the_host_bound_in(host: LxcHost) -> None:
    """A container can read the host's instance bound in; `apply` says who may write to it; a stop removes nothing."""
    before = host.instance.all_inodes()
    with Lxc(host, more=BOUND_IN) as outer:
        assert outer.entries() == [ENTRY]
        assert outer.answer() == HOST
        assert_owner(outer, "this is the instance of an outer user namespace")
        done = outer.run("binfmtd", "apply", "--arch", "riscv64")
        assert done.status == 1
        assert "belongs to an outer user namespace, and only root of that one may write to it" in done.stderr
        outer.power_off()
    assert host.instance.all_inodes() == before


def test_an_instance_that_the_config_mounts(host: LxcHost) -> None:
    """LXC mounts an instance of the container's own; the service starts on it, and the host's stays as it is."""
    before = host.instance.all_inodes()
    with Lxc(host, more=OWN) as outer:
        outer.systemctl("start", UNIT)
        assert_owner(outer, "has an instance of its own")
        assert (outer.entries().count(ENTRY), outer.answer()) == (1, OUTER)
    assert host.instance.all_inodes() == before
