"""The facts about the kernel on which binfmtd relies (docs/kernel.md), on the kernel that runs the tests."""

import os
import select
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.instance import Instance
from support.programs import install
from support.waiting import IN_CLOSE_WRITE, IN_DELETE, IN_IGNORED, IN_MODIFY, IN_UNMOUNT, DirectoryWatch

from binfmtd.kernel.instance import Instance as OpenedInstance
from binfmtd.kernel.mount import Mounted

LINE = rb":one:M::\x00one::/usr/bin/true:"


def test_one_superblock(instance: Instance) -> None:
    """An entry that is registered through one mount exists, and raises events, in another mount."""
    assert instance.shell("mount -t tmpfs t /mnt && mkdir /mnt/b && mount -t binfmt_misc b /mnt/b").returncode == 0
    with DirectoryWatch(instance.directory) as watch:
        assert instance.shell("printf ':one:E::one::/usr/bin/true:' > /mnt/b/register").returncode == 0
        assert watch.pending()
    assert instance.names() == ["one"]


def test_read_only_for_all(instance: Instance) -> None:
    """A read-only superblock refuses writes through each mount; only the mount table of that namespace changes."""
    elsewhere = f"unshare -m --propagation private mount -o remount,ro {instance.mount_point}"
    instance.register(LINE)
    with open(f"/proc/{instance.pid}/mountinfo", "rb") as table:
        changes = select.poll()
        changes.register(table, select.POLLPRI | select.POLLERR)
        assert instance.shell(elsewhere).returncode == 0
        for name in ("register", "one", "status"):
            with pytest.raises(OSError, match="Read-only"):
                os.open(instance.path(name), os.O_WRONLY)
        assert changes.poll(0) == []
        assert instance.shell(f"mount -o remount,rw {instance.mount_point}").returncode == 0
        assert changes.poll(0)
    instance.remove("one")


def test_a_remount_by_mount_is_of_both(instance: Instance) -> None:
    """`mount -o remount,ro` makes the mount read-only as well: then a writable superblock is not enough."""
    instance.shell(f"mount -o remount,ro {instance.mount_point}", check=True)
    with in_the_mount(instance, "false") as answer:
        assert answer == "writable: False"
    instance.shell(f"mount -o remount,bind,rw {instance.mount_point}", check=True)
    instance.register(LINE)


def test_not_while_a_file_is_open_for_writing(instance: Instance) -> None:
    """A file open for writing makes the remount fail with EBUSY, until it is closed."""
    descriptor = os.open(instance.path("register"), os.O_WRONLY)
    refused = instance.shell(f"mount -o remount,ro {instance.mount_point}")
    assert "busy" in refused.stderr
    os.close(descriptor)
    assert instance.shell(f"mount -o remount,ro {instance.mount_point}").returncode == 0


def test_fsconfig_wakes_no_poll(instance: Instance) -> None:
    """A superblock that is made read-only through its descriptor wakes no process that polls a mount table."""
    with open(f"/proc/{instance.pid}/mountinfo", "rb") as table:
        changes = select.poll()
        changes.register(table, select.POLLPRI | select.POLLERR)
        with in_the_mount(instance, "true") as answer:
            assert answer == "writable: False"
            assert changes.poll(0) == []
        with in_the_mount(instance, "false") as answer:
            assert answer == "writable: True"
            assert changes.poll(0) == []


def test_a_detached_mount_keeps_the_entries(instance: Instance) -> None:
    """The last unmount succeeds while a detached mount is open, and a later mount has the same entries."""
    instance.register(LINE)
    before = instance.inode("one")
    with in_the_mount(instance, "false"):
        assert instance.shell(f"umount {instance.mount_point}").returncode == 0
        assert instance.shell(f"mount -t binfmt_misc b {instance.mount_point}").returncode == 0
        assert instance.inode("one") == before


IN_THE_MOUNT = """
import os, sys
from binfmtd.host.syscalls import clone_mount, set_read_only
mount = clone_mount(sys.argv[1])
set_read_only(mount, sys.argv[2] == "true")
try:
    os.close(os.open(sys.argv[1] + "/register", os.O_WRONLY))
    print("writable: True", flush=True)
except OSError:
    print("writable: False", flush=True)
sys.stdin.read()
"""


@contextmanager
def in_the_mount(instance: Instance, read_only: str) -> Iterator[str]:
    """Hold a detached mount, set the superblock read-only ("true") or writable, and yield if it can be written to."""
    command = [sys.executable, "-c", IN_THE_MOUNT, instance.mount_point, read_only]
    holder = instance.popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdin is not None
    try:
        yield holder.stdout.readline().strip()
    finally:
        holder.stdin.close()
        holder.wait()


@pytest.mark.usefixtures("private_instances")
def test_entries_go_with_the_last_mount(instance: Instance) -> None:
    """A mount after the last unmount shows an empty instance, and the watch gets IN_UNMOUNT and IN_IGNORED."""
    assert mounted_anew(instance) == ([], [IN_UNMOUNT, IN_IGNORED])


def test_or_they_outlive_it(lent_instance: Instance) -> None:
    """With one instance for the machine either happens: an empty instance, or entries and watch are unchanged."""
    assert mounted_anew(lent_instance) in (([], [IN_UNMOUNT, IN_IGNORED]), (["one"], []))


def test_when_an_instance_was_created(instance: Instance) -> None:
    """The time of access of `register` distinguishes one instance from the next; no write and no read changes it."""
    before = created(instance)
    writes = (("status", b"0"), ("status", b"1"), ("register", LINE), ("one", b"0"), ("status", b"-1"))
    for truncate in (False, True):
        for name, data in writes:
            instance.write(name, data, truncate=truncate)
    assert instance.run(["cat", f"{instance.mount_point}/register"]).returncode != 0
    assert created(instance) == before
    if not instance.lent:
        mounted_anew(instance)
        assert created(instance) > before


def created(instance: Instance) -> int:
    """Return when the daemon takes the instance to have been created."""
    directory = os.fspath(instance.directory)
    with OpenedInstance(Mounted(directory, os.stat(directory).st_dev, read_only=False)) as opened:
        return opened.created()


def mounted_anew(instance: Instance) -> tuple[list[str], list[int]]:
    """Register an entry, unmount and mount; return the entries that are left, and the events of a watch."""
    instance.register(LINE)
    where = instance.mount_point
    with DirectoryWatch(instance.directory, IN_UNMOUNT | IN_IGNORED) as watch:
        assert instance.shell(f"umount {where} && mount -t binfmt_misc b {where}").returncode == 0
        gone = [event.mask & (IN_UNMOUNT | IN_IGNORED) for event in watch.pending()]
    return instance.names(), gone


def test_a_watch_does_not_keep_it_busy(instance: Instance) -> None:
    """An open descriptor makes umount fail, an inotify watch does not."""
    with instance.directory.joinpath("status").open():
        assert instance.run(["umount", instance.mount_point]).returncode != 0
    with DirectoryWatch(instance.directory):
        assert instance.run(["umount", instance.mount_point]).returncode == 0


def test_several_on_one_descriptor(instance: Instance) -> None:
    """Each write to one open `register` is a registration, also after one that was refused."""
    descriptor = os.open(instance.path("register"), os.O_WRONLY)
    try:
        os.write(descriptor, LINE)
        with pytest.raises(FileExistsError):
            os.write(descriptor, LINE)
        os.write(descriptor, LINE.replace(b"one", b"two"))
    finally:
        os.close(descriptor)
    assert instance.names() == ["two", "one"]


def test_each_buffer_of_writev_is_a_write(instance: Instance) -> None:
    """One writev(2) to `register` registers each buffer, up to the first that is refused."""
    one, two, three = (LINE.replace(b"one", name) for name in (b"one", b"two", b"three"))
    descriptor = os.open(instance.path("register"), os.O_WRONLY)
    try:
        assert os.writev(descriptor, [one, two, one, three]) == len(one) + len(two)
        with pytest.raises(FileExistsError):
            os.writev(descriptor, [one, three])
    finally:
        os.close(descriptor)
    assert instance.names() == ["two", "one"]


def test_f_pins_the_file(instance: Instance, tmp_path: Path) -> None:
    """After a rename over the interpreter the old one still runs with F, and the new one without F."""
    install(tmp_path / "file", b"\x00one")
    for flags, status in (("F", 0), ("", 1)):
        shutil.copy("/usr/bin/true", tmp_path / "interpreter")
        instance.register(rf":one:M::\x00one::{tmp_path}/interpreter:{flags}".encode())
        before = instance.read("one")
        shutil.copy("/usr/bin/false", tmp_path / "new")
        os.rename(tmp_path / "new", tmp_path / "interpreter")
        assert instance.run([str(tmp_path / "file")]).returncode == status
        assert instance.read("one") == before
        instance.remove("one")


def test_newest_first(instance: Instance, tmp_path: Path) -> None:
    """The newest entry is listed first and matched first; its removal uncovers the older one."""
    install(tmp_path / "file", b"\x00one")
    instance.register(LINE)
    instance.register(rb":two:M::\x00one::/usr/bin/false:")
    assert instance.names() == ["two", "one"]
    assert instance.run([str(tmp_path / "file")]).returncode == 1
    instance.write("one", b"0")
    instance.write("one", b"1")
    assert instance.names() == ["two", "one"], "enabling does not move an entry"
    instance.remove("two")
    assert instance.run([str(tmp_path / "file")]).returncode == 0


def test_a_number_for_life(instance: Instance) -> None:
    """The inode number changes with each registration, and with nothing else."""
    instance.register(LINE)
    first = instance.inode("one")
    instance.write("one", b"0")
    instance.write("one", b"1", truncate=True)
    assert instance.inode("one") == first
    numbers = {first}
    for _ in range(20):
        instance.remove("one")
        instance.register(LINE)
        numbers.add(instance.inode("one"))
    assert len(numbers) == 21


def test_registering_names_only_register(instance: Instance) -> None:
    """A registration raises MODIFY and CLOSE_WRITE of `register`, a refused one only CLOSE_WRITE; no entry is named."""
    with DirectoryWatch(instance.directory) as watch:
        instance.register(LINE)
        assert [(event.mask, event.name) for event in watch.pending()] == [
            (IN_MODIFY, "register"),
            (IN_CLOSE_WRITE, "register"),
        ]
        with pytest.raises(FileExistsError):
            instance.register(LINE)
        assert [(event.mask, event.name) for event in watch.pending()] == [(IN_CLOSE_WRITE, "register")]


def test_removing_names_the_entry(instance: Instance) -> None:
    """Removing, enabling and disabling raise MODIFY and CLOSE_WRITE of the entry; other events may follow."""
    instance.register(LINE)
    with DirectoryWatch(instance.directory) as watch:
        for command in (b"0", b"1", b"-1"):
            instance.write("one", command)
            events = watch.pending()
            assert {event.name for event in events} == {"one"}
            assert {IN_MODIFY, IN_CLOSE_WRITE} <= {event.mask for event in events}


def test_flushing_names_status(instance: Instance) -> None:
    """A flush raises MODIFY and CLOSE_WRITE of `status`; no entry is named."""
    instance.register(LINE)
    with DirectoryWatch(instance.directory, IN_MODIFY | IN_CLOSE_WRITE) as watch:
        instance.remove("status")
        assert {event.name for event in watch.pending()} == {"status"}


def test_a_flush_raises_an_event_for_each_entry(instance: Instance) -> None:
    """From Linux 6.18 on a flush raises DELETE for each entry, all before MODIFY of `status`.

    So the events of a flush begin while it goes on.
    """
    instance.register(LINE)
    with DirectoryWatch(instance.directory, IN_DELETE) as watch:
        instance.remove("one")
        if not watch.pending():
            pytest.skip("this kernel raises no DELETE (Linux 6.18 and later do)")
    names = {f"e{number}" for number in range(20)}
    for name in names:
        instance.register(LINE.replace(b"one", name.encode()))
    with DirectoryWatch(instance.directory, IN_MODIFY | IN_DELETE) as watch:
        instance.remove("status")
        *deleted, last = watch.pending()
        assert {event.name for event in deleted if event.mask == IN_DELETE} == names
        assert (last.mask, last.name) == (IN_MODIFY, "status")


def test_own_events_are_there_when_the_write_returns(instance: Instance) -> None:
    """The events of our own write are queued when it returns: events that come later are another process's."""
    with DirectoryWatch(instance.directory) as watch:
        for _ in range(200):
            instance.register(LINE)
            assert [event.mask for event in watch.pending()] == [IN_MODIFY, IN_CLOSE_WRITE]
            instance.remove("one")
            assert IN_CLOSE_WRITE in [event.mask for event in watch.pending()]
