"""The store's directory itself: a command makes it, and removes it again if it has added nothing."""

import os
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from support.stores import StoreCli, emulators, three

from binfmtd.cli.store.directory import Store


@pytest.fixture
def store(tmp_path: Path) -> StoreCli:
    return StoreCli(tmp_path)


def test_a_failed_command_leaves_no_store(store: StoreCli, tmp_path: Path) -> None:
    """A command that adds nothing leaves none of the directories that it made, and each one that was there before."""
    source = emulators(tmp_path / "empty", {})
    first = store.path
    store.path = first / "a" / "b"
    assert store("import", source).status == 1
    assert not first.exists()
    first.mkdir()
    assert store("import", source).status == 1
    assert os.listdir(first) == []
    store.path = first
    assert store("import", source).status == 1
    assert first.is_dir()


def test_a_failed_pull_leaves_no_store(store: StoreCli, tmp_path: Path) -> None:
    """`pull` needs a directory for skopeo: without skopeo, or if skopeo fails, it does not stay."""
    (tmp_path / "bin").mkdir()
    for script in (None, "#!/bin/sh\nexit 1\n"):
        if script is not None:
            (tmp_path / "bin" / "skopeo").write_text(script)
            (tmp_path / "bin" / "skopeo").chmod(0o755)
        result = store("pull", "registry.example/emulators", env={"PATH": str(tmp_path / "bin")})
        assert (result.status, result.stdout) == (1, "")
        assert "skopeo" in result.message
        assert not store.path.exists()


def test_two_commands_make_the_store(store: StoreCli, tmp_path: Path) -> None:
    """A command that fails leaves the directory that it made if another command is preparing a version there."""
    there = Store(str(store.path))
    with there.preparing():
        with there.preparing() as other:
            pass
        assert not os.path.exists(other.place)
        assert store.path.is_dir()
    assert not store.path.exists()
    with there.preparing():
        store.checked("import", emulators(tmp_path / "source", three("9.2.2")))
    assert store.versions == ["9.2.2"]


def test_the_store_is_removed_meanwhile(store: StoreCli, monkeypatch: pytest.MonkeyPatch) -> None:
    """If another command removes the directory that it made just before we take the lock, ours makes it again."""
    locked = Store._locked  # noqa: SLF001  the moment between the two

    def removed_before(there: Store) -> AbstractContextManager[None]:
        monkeypatch.undo()
        os.rmdir(there.path)
        return locked(there)

    monkeypatch.setattr(Store, "_locked", removed_before)
    store.path.mkdir()
    with Store(str(store.path)).preparing() as prepared:
        assert os.listdir(store.path) == [os.path.basename(prepared.place)]
