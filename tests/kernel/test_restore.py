"""Foreign entries that the config's `restore` names come back after a flush, and only then."""

import json
import os
import signal
from pathlib import Path

import pytest
from support.daemon import Daemon, StartDaemon
from support.instance import Instance
from support.programs import install
from support.waiting import wait_until

from binfmtd.kernel.instance import Instance as OpenedInstance
from binfmtd.kernel.instance import Observer
from binfmtd.kernel.mount import Mounted
from binfmtd.model.entry import Entry, ObservedState

CONFIG = r"""
architectures = []
[handlers.ours]
magic = 'MZours'
interpreter = "/usr/bin/true"
"""
ALONE = 'architectures = []\nrestore = ["WSL*"]\n'
WSL = b":WSLInterop:M::MZ::/usr/bin/env:PF"
LATE = b":WSLInterop-late:E::exe::/nowhere/at all:OC"
FLUSH = "status"


def wait_for(instance: Instance, *names: str) -> None:
    """Wait until exactly these entries stand, without stand-ins."""
    wait_until(lambda: sorted(instance.names()) == sorted(names), what=f"the entries {names}")


def wait_seen(daemon: Daemon, *names: str) -> None:
    """Wait until the daemon has these foreign entries in its status, and has converged."""
    seen = {"state": "converged", "foreign": list(names)}
    daemon.wait_status(
        lambda s: s["state"] == "converged" and [f["name"] for f in s["foreign"]] == list(names), str(seen)
    )


def registrations(instance: Instance, *names: str) -> dict[str, str]:
    return {name: instance.read(name) for name in names}


def test_after_a_flush(instance: Instance, start_daemon: StartDaemon) -> None:
    """Restored entries have the same text, state and order as before; entries that restore does not name are gone."""
    daemon = start_daemon(CONFIG)
    for line in (WSL, LATE, b":other:M::other::/usr/bin/true:"):
        instance.register(line)
    instance.write("WSLInterop-late", b"0")
    wait_seen(daemon, "other", "WSLInterop-late", "WSLInterop")
    before = registrations(instance, "WSLInterop", "WSLInterop-late")
    for _ in range(3):
        instance.remove(FLUSH)
        wait_for(instance, "ours", "WSLInterop", "WSLInterop-late")
        # The kernel adds entries enabled: a disabled one is disabled by the next write.
        wait_until(lambda: registrations(instance, "WSLInterop", "WSLInterop-late") == before, what="as they were")
        names = instance.names()
        assert names.index("WSLInterop-late") < names.index("WSLInterop")
    wait_seen(daemon, *[name for name in instance.names() if name != "ours"])
    assert daemon.wait_for_log("entry_restored")["entries"] == ["WSLInterop", "WSLInterop-late"]
    assert "WSLInterop" not in json.loads((daemon.state_directory / "ledger.json").read_text())["entries"]


def test_not_after_a_removal_by_name(instance: Instance, start_daemon: StartDaemon) -> None:
    """An entry that was removed by name is not restored, also not after the next flush."""
    instance.register(WSL)
    daemon = start_daemon(CONFIG)
    instance.remove("WSLInterop")
    wait_seen(daemon)
    instance.remove(FLUSH)
    wait_for(instance, "ours")
    daemon.wait_converged()
    assert instance.names() == ["ours"]
    assert not daemon.logs("entry_restored")


def test_the_only_entry_removed_by_name(instance: Instance, start_daemon: StartDaemon) -> None:
    """A removal by name of the only entry is distinguished from a flush by its event."""
    instance.register(WSL)
    daemon = start_daemon(ALONE)
    instance.remove("WSLInterop")
    wait_seen(daemon)
    assert instance.names() == []
    instance.register(WSL)
    wait_seen(daemon, "WSLInterop")
    instance.remove(FLUSH)
    wait_for(instance, "WSLInterop")


def test_removed_and_flushed_between_two_looks(instance: Instance, start_daemon: StartDaemon) -> None:
    """Of two entries, one removed by name right before a flush, only the other is restored."""
    instance.register(WSL)
    instance.register(LATE)
    daemon = start_daemon(CONFIG)
    daemon.process.send_signal(signal.SIGSTOP)
    instance.remove("WSLInterop")
    instance.remove(FLUSH)
    daemon.process.send_signal(signal.SIGCONT)
    wait_for(instance, "ours", "WSLInterop-late")
    daemon.wait_converged()
    assert sorted(instance.names()) == ["WSLInterop-late", "ours"]


def test_across_a_restart(instance: Instance, start_daemon: StartDaemon) -> None:
    """A flush while no daemon ran is found at the next start, and distinguished from a removal by name."""
    instance.register(WSL)
    instance.register(LATE)
    start_daemon(CONFIG).kill()
    instance.remove("WSLInterop-late")
    start_daemon(CONFIG).kill()
    assert sorted(instance.names()) == ["WSLInterop", "ours"]
    instance.remove(FLUSH)
    start_daemon(CONFIG)
    assert sorted(instance.names()) == ["WSLInterop", "ours"]


@pytest.mark.usefixtures("private_instances")  # on a host the daemon mounts it itself
def test_killed_between_two_files(instance: Instance, start_daemon: StartDaemon) -> None:
    """A daemon that is killed after a flush, with its new entries in the ledger only: the next one restores."""
    instance.register(WSL)
    daemon = start_daemon(CONFIG)
    wait_seen(daemon, "WSLInterop")
    file = daemon.state_directory / "foreign.json"
    before_the_flush = file.read_bytes()
    instance.remove(FLUSH)
    wait_for(instance, "ours", "WSLInterop")
    daemon.wait_converged()
    daemon.kill()
    instance.remove("WSLInterop")
    file.write_bytes(before_the_flush)
    start_daemon(CONFIG)
    assert sorted(instance.names()) == ["WSLInterop", "ours"]


def test_with_a_fresh_instance(instance: Instance, start_daemon: StartDaemon) -> None:
    """The last unmount removes all entries: those to restore come back in the new instance."""
    instance.register(WSL)
    daemon = start_daemon(CONFIG)
    before = instance.read("WSLInterop")
    instance.shell(f"umount {instance.mount_point}", check=True)
    daemon.wait_for_log("trouble")
    instance.shell(f"mount -t binfmt_misc binfmt_misc {instance.mount_point}", check=True)
    wait_for(instance, "ours", "WSLInterop")
    assert instance.read("WSLInterop") == before


@pytest.mark.parametrize("noticed", [True, False], ids=["cover noticed", "cover not noticed"])
@pytest.mark.usefixtures("private_instances")  # on a host the daemon mounts it itself
def test_removed_by_name_under_a_cover(instance: Instance, start_daemon: StartDaemon, *, noticed: bool) -> None:
    """An entry that was removed by name while a mount covered the instance is not restored; a flushed one is."""
    instance.register(WSL)
    instance.register(LATE)
    daemon = start_daemon(CONFIG)
    wait_seen(daemon, "WSLInterop-late", "WSLInterop")
    directory = os.open(instance.directory, os.O_PATH | os.O_DIRECTORY)
    if not noticed:
        daemon.process.send_signal(signal.SIGSTOP)
    try:
        instance.shell(f"mount -t tmpfs covers {instance.mount_point}", check=True)
        if noticed:
            daemon.wait_for_log("trouble")
        for entry in ("WSLInterop", FLUSH):
            file = os.open(entry, os.O_WRONLY, dir_fd=directory)
            os.write(file, b"-1")
            os.close(file)
    finally:
        os.close(directory)
    if not noticed:
        daemon.process.send_signal(signal.SIGCONT)
        daemon.wait_for_log("trouble")
    instance.shell(f"umount {instance.mount_point}", check=True)
    wait_for(instance, "ours", "WSLInterop-late")
    daemon.wait_converged()
    assert sorted(instance.names()) == ["WSLInterop-late", "ours"]


def test_its_owner_may_be_faster(instance: Instance, start_daemon: StartDaemon) -> None:
    """A program that registers its entry again after its own flush gets no EEXIST, and its new entry is kept."""
    daemon = start_daemon(CONFIG)
    for number in range(20):
        line = b":WSLInterop:M::MZ%d::/usr/bin/env:" % number
        instance.register(line)
        wait_seen(daemon, "WSLInterop")
        instance.remove(FLUSH)
        instance.register(b":WSLInterop:M::other%d::/usr/bin/env:" % number)
        wait_for(instance, "ours", "WSLInterop")
        assert f"other{number}".encode().hex() in instance.read("WSLInterop")
        instance.remove("WSLInterop")
        wait_seen(daemon)
    assert not daemon.logs("registration_failed")


def test_on_its_side_of_ours(instance: Instance, start_daemon: StartDaemon) -> None:
    """Of two entries that take the same file, the same one wins as before the flush."""
    instance.register(WSL)
    daemon = start_daemon(CONFIG)
    assert instance.names() == ["ours", "WSLInterop"]
    instance.remove(FLUSH)
    wait_until(lambda: instance.names() == ["ours", "WSLInterop"], what="ours above")
    instance.remove("WSLInterop")
    wait_seen(daemon)
    instance.register(WSL)
    wait_seen_shadowed(daemon)
    instance.remove(FLUSH)
    wait_until(lambda: instance.names() == ["WSLInterop", "ours"], what="theirs above")
    wait_seen_shadowed(daemon)


def wait_seen_shadowed(daemon: Daemon) -> None:
    daemon.wait_status(lambda s: [h["state"] for h in s["handlers"]] == ["shadowed"] and s["state"] == "converged")


@pytest.mark.parametrize("by_its_owner", [False, True])
def test_one_that_cannot_be_restored(
    instance: Instance, start_daemon: StartDaemon, tmp_path: Path, by_its_owner: bool
) -> None:
    """An entry with F whose interpreter is missing is logged once; the rest is restored, and it follows later.

    It is no problem any more when its owner registers it.
    """
    interpreter = install(tmp_path / "interpreter", Path("/usr/bin/true").read_bytes())
    line = f":WSLInterop:M::MZ::{interpreter}:F".encode()
    instance.register(line)
    daemon = start_daemon(CONFIG)
    interpreter.rename(tmp_path / "away")
    instance.remove(FLUSH)
    wait_for(instance, "ours")
    assert "WSLInterop" in daemon.wait_status(lambda s: s["state"] == "degraded")["problem"]
    assert len(daemon.logs("registration_failed", entry="WSLInterop")) == 1
    (tmp_path / "away").rename(interpreter)
    if by_its_owner:
        instance.register(line)
    else:
        daemon.reload()
    wait_for(instance, "ours", "WSLInterop")
    daemon.wait_converged()


def test_unmanaged_remove_spares_it(instance: Instance, start_daemon: StartDaemon) -> None:
    """With unmanaged = "remove" an entry that restore names is not removed."""
    instance.register(b":mine:M::mine::/usr/bin/true:")
    instance.register(b":theirs:M::theirs::/usr/bin/true:")
    start_daemon('unmanaged = "remove"\nrestore = ["mi?e"]\n' + CONFIG)
    assert sorted(instance.names()) == ["mine", "ours"]
    instance.remove(FLUSH)
    wait_for(instance, "mine", "ours")


def test_a_flush_in_the_middle_of_a_look(instance: Instance) -> None:
    """A flush during a scan gives an empty result, since half of it would look like removals by name."""
    for number in range(3):
        instance.register(b":e%d:E::e%d::/usr/bin/true:" % (number, number))
    where = Mounted(str(instance.directory), os.stat(instance.directory).st_dev, read_only=False)
    observer = Observer()
    with FlushedWhileRead(where, instance) as flushed:
        assert observer.observe(flushed) == ObservedState()


class FlushedWhileRead(OpenedInstance):
    """An instance that is flushed after its first entry has been read."""

    def __init__(self, where: Mounted, instance: Instance) -> None:
        super().__init__(where)
        self._instance = instance

    def entry(self, name: str) -> Entry | None:
        found = super().entry(name)
        if found is not None:
            self._instance.remove(FLUSH)
        return found
