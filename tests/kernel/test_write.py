"""Writing to `register` of a real instance."""

import errno
import os

import pytest
from support.instance import MOUNT_POINT, Instance

from binfmtd.errors import MountError
from binfmtd.kernel.instance import Instance as Opened
from binfmtd.kernel.mount import Mounted, created_at
from binfmtd.kernel.writer import Writer, Wrote

NAMES = ("one", "two", "three", "four", "five")


def line(name: str) -> bytes:
    """Return the line that registers an entry of this name."""
    return rf":{name}:M::\x00{name}::/usr/bin/true:".encode()


def mounted(instance: Instance) -> Mounted:
    """Return the instance's mount for the daemon's code."""
    return Mounted(str(instance.directory), os.stat(instance.directory).st_dev, read_only=False)


@pytest.mark.parametrize("there", [(), ("one",), ("two",), ("three", "four"), ("five",), NAMES])
def test_each_line_has_its_own_outcome(instance: Instance, there: tuple[str, ...]) -> None:
    """Each line has its own result: a line that the kernel refuses stops no other line."""
    for name in there:
        instance.register(line(name))
    with Opened(mounted(instance)) as opened:
        writer = Writer(opened)
        outcome = writer.register(line(name) for name in NAMES)
    assert [error.errno if error else None for error in outcome] == [
        errno.EEXIST if name in there else None for name in NAMES
    ]
    assert set(instance.names()) == set(NAMES)
    new = [name for name in NAMES if name not in there]
    assert [name for name in instance.names() if name in new] == new[::-1]
    assert writer.take_wrote() == [Wrote("register", len(new))]


def test_more_lines_than_one_system_call_takes(instance: Instance) -> None:
    """More lines than the 1,024 buffers of one writev(2) are all registered."""
    names = [f"e{number}" for number in range(2_100)]
    with Opened(mounted(instance)) as opened:
        assert set(Writer(opened).register(map(line, names))) == {None}
    assert instance.names() == names[::-1]


def test_by_path(instance: Instance) -> None:
    """The instance need not be opened; a path on another file system raises FileNotFoundError."""
    there = mounted(instance)
    assert Writer(there).register([line("one")]) == [None]
    with pytest.raises(FileNotFoundError):
        Writer(there._replace(device=there.device + 1)).register([line("two")])
    assert instance.names() == ["one"]


@pytest.mark.usefixtures("private_instances")
def test_the_next_instance(instance: Instance) -> None:
    """An instance at the same path is another one, also where the kernel gives it the device number of the last one."""
    before = mounted(instance)
    before = before._replace(created=created_at(before.directory, before.device))
    with Opened(before):
        pass
    instance.shell(f"umount {MOUNT_POINT}; mount -t binfmt_misc binfmt_misc {MOUNT_POINT}", check=True)
    for there in (before, before._replace(device=mounted(instance).device)):
        with pytest.raises(MountError):
            Opened(there)
        with pytest.raises(FileNotFoundError):
            Writer(there).register([line("one")])
    assert instance.names() == []
