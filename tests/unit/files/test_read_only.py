"""The mounts that keep every process from writing to a file."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from binfmtd.files.read_only import protects, unwritable
from binfmtd.formats.mountinfo import MountLine

DISK, OVERLAY, TMPFS = (8, 1), (0, 50), (0, 51)


def mount(mount_id: int, device: tuple[int, int], root: str, point: str, *, read_only: bool = False) -> MountLine:
    return MountLine(mount_id, device, root, point, read_only, False, "any")  # noqa: FBT003  in the table's order


HOST = (mount(1, DISK, "/", "/"), mount(2, TMPFS, "/", "/run"))
VOLUME = mount(13, DISK, "/var/lib/kubelet/pods/1/volumes/config", "/config", read_only=True)
POD = (mount(11, OVERLAY, "/", "/"), mount(12, TMPFS, "/", "/dev"), VOLUME)
PAUSE = (mount(31, (0, 60), "/", "/"),)
UNIT_ROOT = mount(21, DISK, "/", "/", read_only=True)
UNIT = (UNIT_ROOT, mount(22, TMPFS, "/", "/run"))
OWN = mount(23, DISK, "/srv/config", "/etc/binfmtd", read_only=True)


@pytest.mark.parametrize(
    ("on", "path", "ours", "of_init", "protected"),
    [
        pytest.param(VOLUME, "/config/x", POD, POD, True, id="a volume of a pod, process 1 is in the same container"),
        pytest.param(VOLUME, "/config/x", POD, PAUSE, True, id="one process namespace for all containers of the pod"),
        pytest.param(VOLUME, "/config/x", POD, HOST, True, id="hostPID"),
        pytest.param(UNIT_ROOT, "/usr/bin/x", UNIT, HOST, False, id="ProtectSystem in a system container"),
        pytest.param(OWN, "/etc/binfmtd/x", (*UNIT, OWN), HOST, False, id="BindReadOnlyPaths of a writable directory"),
        pytest.param(
            mount(24, (0, 70), "/", "/own", read_only=True), "/own/x", UNIT, HOST, True, id="only we have it mounted"
        ),
        pytest.param(
            mount(25, DISK, "/srv/tree", "/", read_only=True),
            "/etc/x",
            (mount(25, DISK, "/srv/tree", "/", read_only=True),),
            HOST,
            False,
            id="RootDirectory",
        ),
        pytest.param(
            UNIT_ROOT, "/x", UNIT, (mount(1, DISK, "/", "/", read_only=True),), True, id="read-only for process 1, too"
        ),
        pytest.param(
            UNIT_ROOT,
            "/usr/x",
            UNIT,
            (mount(1, DISK, "/", "/", read_only=True), mount(4, DISK, "/usr", "/mnt")),
            False,
            id="writable at another place",
        ),
        pytest.param(
            UNIT_ROOT,
            "/usr/x",
            UNIT,
            (mount(1, DISK, "/", "/", read_only=True), mount(4, DISK, "/us", "/mnt")),
            True,
            id="what is writable there is another directory",
        ),
        pytest.param(UNIT_ROOT, "/x", UNIT, (), False, id="an empty table says nothing"),
        pytest.param(HOST[0], "/x", HOST, HOST, False, id="writable"),
    ],
)
def test_a_read_only_mount(
    on: MountLine, path: str, ours: tuple[MountLine, ...], of_init: tuple[MountLine, ...], *, protected: bool
) -> None:
    """A read-only mount counts unless process 1 of the container can write to the file in its mount namespace."""
    assert protects(on, path, ours, of_init) is protected


def test_what_process_1_mounted_cannot_be_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """If the mounts of process 1 cannot be read, as with hidepid, a read-only mount protects nothing."""
    monkeypatch.setattr(os, "statvfs", lambda _path: SimpleNamespace(f_flag=os.ST_RDONLY))
    seen = []

    def table(process: str) -> tuple[MountLine, ...]:
        seen.append(process)
        if process == "1":
            raise FileNotFoundError
        return (mount(7, DISK, "/", "/", read_only=True),)

    monkeypatch.setattr("binfmtd.files.read_only._find", lambda path: (7, path))
    monkeypatch.setattr("binfmtd.files.read_only._table", table)
    assert not unwritable(str(tmp_path), contained=True)
    assert seen == ["self", "1"]
