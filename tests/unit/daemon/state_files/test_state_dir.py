"""The state directory and its lock."""

import errno
import fcntl
import os
import shutil
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from support.waiting import wait_until

from binfmtd.daemon.state_files import state_dir
from binfmtd.daemon.state_files.state_dir import APPLY, LOCK_NAME, Lock, default_state_dir, make_state_dir, running_pid
from binfmtd.errors import AlreadyRunningError, StateError


@pytest.mark.parametrize(
    ("environment", "uid", "expected"),
    [
        ({"BINFMTD_STATE_DIR": "/x", "XDG_RUNTIME_DIR": "/run/user/1"}, 0, "/x"),
        ({"BINFMTD_STATE_DIR": "", "XDG_RUNTIME_DIR": "/run/user/1"}, 0, "/run/binfmtd"),
        ({"XDG_RUNTIME_DIR": "/run/user/1"}, 1, "/run/user/1/binfmtd"),
    ],
)
def test_where_it_is(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], uid: int, expected: str) -> None:
    """The state directory is $BINFMTD_STATE_DIR, for root /run/binfmtd, else below $XDG_RUNTIME_DIR."""
    monkeypatch.delenv("BINFMTD_STATE_DIR", raising=False)
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    assert default_state_dir() == expected


def test_an_ordinary_user_without_a_session_has_to_name_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a session the error of an ordinary user names --state-dir."""
    monkeypatch.delenv("BINFMTD_STATE_DIR", raising=False)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setattr(os, "geteuid", lambda: 1)
    with pytest.raises(StateError, match="--state-dir"):
        default_state_dir()


def test_it_is_made_with_its_parents_and_may_be_there(tmp_path: Path) -> None:
    """The directory is readable for all, as `status` is, and writable for us alone."""
    path = tmp_path / "a" / "b"
    before = os.umask(0o022)
    try:
        make_state_dir(str(path))
        make_state_dir(str(path))
    finally:
        os.umask(before)
    assert path.is_dir()
    assert not path.stat().st_mode & 0o022


@pytest.mark.parametrize("mode", [0o775, 0o757, 0o1777])
def test_one_that_others_can_write_is_refused(tmp_path: Path, mode: int) -> None:
    """A directory that another user can write is refused, even a sticky one: the ledger could be made there first."""
    path = tmp_path / "state"
    path.mkdir()
    path.chmod(mode)
    with pytest.raises(StateError, match=f"{path}.*mode {mode:04o}.*chmod go-w"):
        make_state_dir(str(path))


def test_another_users_directory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another user's directory is refused, since its owner decides what is in it."""
    path = tmp_path / "state"
    path.mkdir()
    if os.geteuid() == 0:
        os.chown(path, 4711, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)
    with pytest.raises(StateError, match="belongs to another user"):
        make_state_dir(str(path))


def test_what_is_no_directory_of_its_own_is_refused(tmp_path: Path) -> None:
    """A link is refused, since it could be turned elsewhere, and so is a file, which cannot hold files."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "file").touch()
    with pytest.raises(StateError, match="is a symbolic link, or not a directory"):
        make_state_dir(str(tmp_path / "link"))
    with pytest.raises(StateError, match="--state-dir"):
        make_state_dir(str(tmp_path / "file"))
    with pytest.raises(StateError, match="--state-dir"):
        make_state_dir(str(tmp_path / "file" / "below"))


def test_one_below_a_directory_that_others_can_write_is_refused(tmp_path: Path) -> None:
    """A directory below one that another user can write is refused, since it could be exchanged.

    The error names the path at fault.
    """
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(StateError, match=f"not safe: .*{tmp_path}/open"):
        make_state_dir(str(tmp_path / "open" / "state"))


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_dir, "PATIENCE", 0.0)


@pytest.mark.usefixtures("_impatient")
def test_an_apply_at_work_is_no_daemon(tmp_path: Path) -> None:
    """While an `apply` runs the error asks to try again, and not to stop a daemon."""
    lock = Lock(str(tmp_path), APPLY)
    assert running_pid(str(tmp_path)) is None, "it is no daemon"
    with pytest.raises(StateError, match="try again when it has finished") as caught:
        Lock(str(tmp_path))
    assert not isinstance(caught.value, AlreadyRunningError)
    lock.release()


def test_a_lock_that_is_held_for_an_instant_is_waited_for(tmp_path: Path) -> None:
    """A lock that `running_pid` holds for an instant does not stop a daemon from starting."""
    descriptor = os.open(tmp_path / LOCK_NAME, os.O_RDWR | os.O_CREAT)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    letting_go = threading.Timer(0.05, os.close, [descriptor])
    letting_go.start()
    lock = Lock(str(tmp_path))
    assert running_pid(str(tmp_path)) == os.getpid()
    lock.release()
    letting_go.join()


def test_a_reader_that_waits_for_a_core_is_no_daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A start waits longer for a process that only looks than for a daemon; its error then says so."""
    monkeypatch.setattr(state_dir, "PATIENCE", 0.0)
    monkeypatch.setattr(state_dir, "READER_PATIENCE", 30.0)
    descriptor = os.open(tmp_path / LOCK_NAME, os.O_RDWR | os.O_CREAT)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    letting_go = threading.Timer(0.05, os.close, [descriptor])
    letting_go.start()
    Lock(str(tmp_path)).release()
    letting_go.join()
    monkeypatch.setattr(state_dir, "READER_PATIENCE", 0.0)
    with open(tmp_path / LOCK_NAME) as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        with pytest.raises(StateError, match="`lslocks` lists it") as caught:
            Lock(str(tmp_path))
    assert not isinstance(caught.value, AlreadyRunningError)


@pytest.mark.usefixtures("_impatient")
def test_a_second_daemons_error_names_the_first(tmp_path: Path) -> None:
    """A state directory has one daemon; the error of a second one names the first, and a released lock can be taken."""
    lock = Lock(str(tmp_path))
    assert running_pid(str(tmp_path)) == os.getpid()
    with pytest.raises(AlreadyRunningError, match=rf"{tmp_path} \(pid {os.getpid()}\)") as caught:
        Lock(str(tmp_path))
    assert caught.value.pid == os.getpid()
    lock.release()
    assert running_pid(str(tmp_path)) is None
    Lock(str(tmp_path)).release()


def test_looking_does_not_take_the_lock(tmp_path: Path) -> None:
    """`running_pid` does not take the lock, so `status` does not make a starting daemon fail."""
    Lock(str(tmp_path)).release()
    assert running_pid(str(tmp_path)) is None
    Lock(str(tmp_path)).release()


def test_what_has_to_be_done_before_the_lock_is_seen(tmp_path: Path) -> None:
    """``before`` is called while `running_pid` finds no daemon, and not at all if another daemon has the lock."""
    seen: list[int | None] = []
    lock = Lock(str(tmp_path), before=lambda: seen.append(running_pid(str(tmp_path))))
    assert set(seen) == {None}
    assert running_pid(str(tmp_path)) == os.getpid()
    with pytest.raises(AlreadyRunningError):
        Lock(str(tmp_path), before=lambda: pytest.fail("another daemon has the lock"))
    lock.release()


def test_no_daemon_ever_ran(tmp_path: Path) -> None:
    """`running_pid` finds no daemon where none ever ran, and makes no file."""
    assert running_pid(str(tmp_path)) is None
    assert running_pid(str(tmp_path / "missing")) is None
    assert list(tmp_path.iterdir()) == []


def test_a_killed_daemon_holds_no_lock(tmp_path: Path) -> None:
    """The kernel releases a killed daemon's lock; its pid in the file does not count, even one longer than ours."""
    take = "from binfmtd.daemon.state_files.state_dir import Lock; Lock(sys.argv[1])"
    script = f"import os, sys; {take}; os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False)
    assert (tmp_path / LOCK_NAME).read_text().split()[0].isdigit()
    assert running_pid(str(tmp_path)) is None
    (tmp_path / LOCK_NAME).write_text("9" * 20 + " and so on\n")
    lock = Lock(str(tmp_path))
    assert running_pid(str(tmp_path)) == os.getpid()
    lock.release()


def test_only_its_owner_may_take_the_lock(tmp_path: Path) -> None:
    """Only we may open the lock, or any user could block every daemon; an older version's open file is closed."""
    (tmp_path / LOCK_NAME).touch(mode=0o644)
    lock = Lock(str(tmp_path))
    assert stat.S_IMODE((tmp_path / LOCK_NAME).stat().st_mode) == 0o600
    lock.release()


def test_without_the_right_to_open_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the right to open the lock, /proc/locks names its holder, not a waiting process; None if it is free."""

    def closed(path: str, _: int) -> int:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

    lock = Lock(str(tmp_path))
    with subprocess.Popen(["flock", str(tmp_path / LOCK_NAME), "true"]) as waiting:
        file = str((tmp_path / LOCK_NAME).stat().st_ino)
        wait_until(
            lambda: Path("/proc/locks").read_text().count(f":{file} ") == 2, what="the process that waits for it"
        )
        with monkeypatch.context() as patch:
            patch.setattr(os, "open", closed)
            assert running_pid(str(tmp_path)) == os.getpid()
        lock.release()
        assert waiting.wait(10) == 0
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", closed)
        assert running_pid(str(tmp_path)) is None


@pytest.mark.usefixtures("_impatient")
def test_a_holder_that_has_not_written_its_pid(tmp_path: Path) -> None:
    """Between taking the lock and writing the pid a daemon runs, and its pid is unknown."""
    lock = Lock(str(tmp_path))
    (tmp_path / LOCK_NAME).write_text("")
    assert running_pid(str(tmp_path)) == 0
    with pytest.raises(AlreadyRunningError, match="pid unknown"):
        Lock(str(tmp_path))
    lock.release()


def test_a_lock_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    """A lock that is a link is refused, since its target would be truncated."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / LOCK_NAME).symlink_to(victim)
    with pytest.raises(StateError, match="is a symbolic link, which is not allowed there: remove it"):
        Lock(str(tmp_path))
    assert victim.read_text() == "precious"


def test_a_removed_directory_is_made_again(tmp_path: Path) -> None:
    """A removed directory is made again with its lock, which stays held; if nothing is missing, nothing happens."""
    directory = tmp_path / "state"
    make_state_dir(str(directory))
    lock = Lock(str(directory))
    assert not lock.keep()
    shutil.rmtree(directory)
    assert lock.keep()
    assert running_pid(str(directory)) == os.getpid()
    assert not lock.keep()
    lock.release()
    assert running_pid(str(directory)) is None


def test_one_that_another_daemon_has_taken_meanwhile_is_its_own(tmp_path: Path) -> None:
    """If another daemon has taken the directory meanwhile, the error has its pid; a later try may succeed."""
    directory = tmp_path / "state"
    make_state_dir(str(directory))
    ours = Lock(str(directory))
    shutil.rmtree(directory)
    make_state_dir(str(directory))
    theirs = Lock(str(directory))
    with pytest.raises(AlreadyRunningError):
        ours.keep()
    theirs.release()
    assert ours.keep()
    ours.release()
