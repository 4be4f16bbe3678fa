"""Incus: an unprivileged container; whose binfmt_misc serves it, and what binfmtd says in it.

incusd runs on a private host, on which binfmtd runs as well.
"""

from collections.abc import Iterator

import pytest
from support.booted import ENTRY, MOUNT_POINT, UNIT
from support.incus import IncusContainer, IncusHost, unpack
from support.nested_checks import (
    HostDaemon,
    assert_follows_the_remedy,
    assert_not_mounted,
    assert_owner,
    assert_repairs,
    daemon_on,
)
from support.required import Needs

pytestmark = pytest.mark.hosts

HOST, CONTAINER = 42, 51  # `probe` and `doctor` take 42 for a working emulator
BIND = f"lxc.mount.entry = {MOUNT_POINT} {MOUNT_POINT.lstrip('/')} none bind 0 0"
OWN = f"lxc.mount.entry = binfmt_misc {MOUNT_POINT.lstrip('/')} binfmt_misc rw 0 0"


@pytest.fixture(scope="module")
def host(needs: Needs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[IncusHost]:
    needs("mmdebstrap", "make")
    with IncusHost(tmp_path_factory.mktemp("incus") / "host", unpack()) as host:
        yield host


@pytest.fixture(scope="module")
def daemon(host: IncusHost) -> Iterator[HostDaemon]:
    """Run the daemon on the host."""
    with daemon_on(host, HOST) as daemon:
        yield daemon


@pytest.fixture(scope="module")
def container(host: IncusHost) -> IncusContainer:
    return IncusContainer(host, "container", CONTAINER)


@pytest.fixture
def started(container: IncusContainer) -> Iterator[IncusContainer]:
    """Yield the container in a new user namespace."""
    container.start()
    yield container
    container.stop()


def test_the_handlers_of_the_host(host: IncusHost, daemon: HostDaemon, started: IncusContainer) -> None:
    """Incus mounts no instance, so the host's daemon serves the container, until that mounts one."""
    assert started.answer() == HOST
    assert_not_mounted(started, BIND)
    before = daemon.repairs()
    host.instance.remove("status")
    daemon.wait_repaired(before)
    assert started.answer() == HOST
    assert_follows_the_remedy(started)
    kept = host.instance.all_inodes()
    assert started.answer() == CONTAINER
    assert_owner(started, "has an instance of its own")
    assert_repairs(started)
    assert (host.instance.all_inodes(), daemon.repairs()) == (kept, before + 1)


def test_the_host_bound_in(host: IncusHost, daemon: HostDaemon, container: IncusContainer) -> None:
    """With that line in raw.lxc it reads the host's instance; `apply` says who may write; a stop removes nothing."""
    before, repairs = host.instance.all_inodes(), daemon.repairs()
    container.set_raw(BIND)
    container.start()
    assert container.entries() == [ENTRY]
    assert container.answer() == HOST
    assert_owner(container, "this is the instance of an outer user namespace")
    done = container.run("binfmtd", "apply")
    assert done.status == 1
    assert "belongs to an outer user namespace, and only root of that one may write to it" in done.stderr
    container.stop()
    assert (host.instance.all_inodes(), daemon.repairs()) == (before, repairs)


def test_an_instance_that_the_config_mounts(host: IncusHost, daemon: HostDaemon, container: IncusContainer) -> None:
    """With that line in raw.lxc it has an instance of its own at each start, which its service keeps."""
    before, repairs = host.instance.all_inodes(), daemon.repairs()
    container.set_raw(OWN)
    for _ in range(2):
        container.start()
        assert ENTRY not in container.entries()
        container.systemctl("start", UNIT)
        assert_owner(container, "has an instance of its own")
        assert container.answer() == CONTAINER
        assert_repairs(container)
        container.stop()
    container.set_raw()
    assert (host.instance.all_inodes(), daemon.repairs()) == (before, repairs)
