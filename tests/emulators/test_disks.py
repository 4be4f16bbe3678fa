"""A store on a disk that is full, or that cannot be written: one error, with a remedy, and nothing left behind."""

import os
from pathlib import Path

import pytest
from support.cli import Result, run
from support.layouts import Layout
from support.stores import ENVIRONMENT, StoreCli, emulators, three
from support.tars import Member

SIZE = 4 << 20  # bytes of the disk
MOUNT = 'mount -t tmpfs -o "$1" tmpfs "$2" && shift 2 && for line; do sh -c "$line"; echo "= $?"; done'


@pytest.fixture
def disk(store: StoreCli) -> StoreCli:
    """Return a store whose directory is a mount point."""
    store.path.mkdir()
    return store


def on_a_disk(store: StoreCli, options: str, *lines: str) -> Result:
    """Run lines of a shell where the store's directory is a file system of its own, with these options."""
    unshare = ["unshare", *([] if os.geteuid() == 0 else ["--map-root-user"]), "--mount", "--propagation=private"]
    return run([*unshare, "sh", "-uc", MOUNT, "sh", options, str(store.path), *lines], env=ENVIRONMENT, timeout=120)


def line(store: StoreCli, *arguments: str) -> str:
    return " ".join(f"'{word}'" for word in store.command(*arguments))


def test_full(disk: StoreCli, layout: Layout, tmp_path: Path) -> None:
    """Too little room for the files, for skopeo's copy or for the manifest: nothing is added, and all is removed."""
    large = {name: data + os.urandom(SIZE // 2) for name, data in three("9.2.2").items()}
    source = emulators(tmp_path / "source", large)
    layout.add("x", [Member(f"usr/bin/{name}", data) for name, data in large.items()])
    small = emulators(tmp_path / "small", three("8.1.5"))
    listing = f"ls -A '{disk.path}'"
    result = on_a_disk(
        disk,
        f"size={SIZE},mode=755",
        line(disk, "import", small),
        line(disk, "import", source),
        listing,
        line(disk, "import", str(layout.directory)),
        listing,
        line(disk, "verify"),
    )
    output = [text for text in result.stdout.splitlines() if not text.startswith("added ")]
    assert output == ["= 0", "= 1", "8.1.5", "= 0", "= 1", "8.1.5", "= 0", "8.1.5: as it was added", "= 0"]
    first, second = result.messages
    assert first == f"{disk.path}: No space left on device: make room (nothing was added)"
    assert second.startswith(f"{layout.directory}: skopeo: ")
    assert second.endswith("no space left on device: make room in the store")


def test_full_for_settings(disk: StoreCli, tmp_path: Path) -> None:
    """Too little room for the files with settings: nothing is added, and all is removed."""
    source = emulators(
        tmp_path / "source", {name: data + os.urandom(SIZE // 5) for name, data in three("9.2.2").items()}
    )
    result = on_a_disk(
        disk,
        f"size={SIZE},mode=755",
        line(disk, "import", source),
        line(disk, "configure", "9.2.2", "A=1", "--name", "set"),
        f"ls -A '{disk.path}'",
        line(disk, "verify"),
    )
    output = [text for text in result.stdout.splitlines() if not text.startswith("added ")]
    assert output == ["= 0", "= 1", "9.2.2", "= 0", "9.2.2: as it was added", "= 0"]
    assert result.message == f"{disk.path}: No space left on device: make room (nothing was added)"


def test_too_few_inodes(disk: StoreCli, tmp_path: Path) -> None:
    """A disk without inodes is full as well."""
    source = emulators(tmp_path / "source", three("9.2.2"))
    result = on_a_disk(disk, "nr_inodes=6,mode=755", line(disk, "import", source), f"ls -A '{disk.path}'")
    assert result.stdout.splitlines() == ["= 1", "= 0"]
    assert result.message == f"{disk.path}: No space left on device: make room (nothing was added)"


@pytest.mark.parametrize("command", [("prune",), ("remove", "9.2.2")])
def test_room_is_made(disk: StoreCli, tmp_path: Path, command: tuple[str, ...]) -> None:
    """A version is removed from a disk on which not one file or directory more can be made."""
    fill = f"i=0; while touch '{disk.path}/.fill-'$i 2>/dev/null; do i=$((i+1)); done"
    result = on_a_disk(
        disk,
        "nr_inodes=20,mode=755",
        line(disk, "import", emulators(tmp_path / "source", three("9.2.2"))),
        fill,
        f"touch '{disk.path}/.more' 2>/dev/null",
        line(disk, *command),
        f"ls -A '{disk.path}' | grep -v fill-",
    )
    assert result.stdout.splitlines()[1:] == ["= 0", "= 0", "= 1", "removed 9.2.2", "= 0", "= 1"]
    assert result.stderr == ""


def test_in_an_image(disk: StoreCli, tmp_path: Path) -> None:
    """A version that a container has from its image, so in a lower layer of an overlay, is removed."""
    layers = f"lowerdir={tmp_path}/lower,upperdir={disk.path}/.upper,workdir={disk.path}/.work"
    result = on_a_disk(
        disk,
        "mode=755",
        line(disk, "import", emulators(tmp_path / "source", three("9.2.2"))),
        f"cp -a '{disk.path}' '{tmp_path}/lower' && mkdir '{disk.path}/.upper' '{disk.path}/.work'",
        f"mount -t overlay -o redirect_dir=off,{layers} overlay '{disk.path}'",
        line(disk, "remove", "9.2.2"),
        f"ls -A '{disk.path}'",
    )
    assert result.stdout.splitlines()[1:] == ["= 0", "= 0", "= 0", "removed 9.2.2", "= 0", "= 0"]
    assert result.stderr == ""


def test_read_only(disk: StoreCli, tmp_path: Path) -> None:
    """A store that cannot be written can be listed and verified; a change of it is one error."""
    source = emulators(tmp_path / "source", three("9.2.2"))
    result = on_a_disk(
        disk,
        "mode=755",
        line(disk, "import", source),
        f"mount -o remount,bind,ro '{disk.path}'",
        line(disk, "import", source, "--name", "other"),
        line(disk, "remove", "9.2.2"),
        line(disk, "prune"),
        line(disk, "verify"),
    )
    assert result.stdout.splitlines()[1:] == ["= 0", "= 0", "= 1", "= 1", "= 1", "9.2.2: as it was added", "= 0"]
    assert len(result.messages) == 3
    for message in result.messages:
        assert message.startswith(f"{disk.path}: Read-only file system: make it writable (")


def test_noexec(disk: StoreCli, tmp_path: Path) -> None:
    """Where the kernel executes no file, no emulator is added."""
    result = on_a_disk(disk, "noexec,mode=755", line(disk, "import", emulators(tmp_path / "source", three("9.2.2"))))
    assert result.stdout.splitlines() == ["= 1"]
    assert result.message.startswith(f"the store {disk.path}: its file system is mounted with noexec")
