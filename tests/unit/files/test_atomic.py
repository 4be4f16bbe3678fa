import os
import socket
import stat
from pathlib import Path

import pytest

from binfmtd.errors import FormatError
from binfmtd.files.atomic import STATE_LIMIT, read_regular, read_state, write_atomically, write_state


def test_a_written_file_has_its_content_and_mode(tmp_path: Path) -> None:
    """A written file has the requested mode, whatever the umask, and nothing else is left in the directory."""
    before = os.umask(0o077)
    try:
        write_atomically(str(tmp_path / "status.json"), b"{}")
        write_atomically(str(tmp_path / "secret"), b"x", 0o600)
    finally:
        os.umask(before)
    assert (tmp_path / "status.json").read_bytes() == b"{}"
    assert stat.S_IMODE((tmp_path / "status.json").stat().st_mode) == 0o644
    assert stat.S_IMODE((tmp_path / "secret").stat().st_mode) == 0o600
    assert sorted(os.listdir(tmp_path)) == ["secret", "status.json"]


def test_state_is_read_as_large_as_it_is_written(tmp_path: Path) -> None:
    """One limit holds for reading and writing state; larger content is not written, and the old file stays."""
    path = str(tmp_path / "state.json")
    largest = bytes(STATE_LIMIT)
    write_state(path, largest)
    assert read_state(path) == largest
    with pytest.raises(OSError, match="File too large") as refused:
        write_state(path, largest + b"x")
    assert refused.value.filename == path
    assert len(read_state(path)) == STATE_LIMIT


def test_a_reader_keeps_the_old_file(tmp_path: Path) -> None:
    """A process that has the old file open reads it whole: the file is replaced, not rewritten."""
    (tmp_path / "f").write_bytes(b"old")
    with (tmp_path / "f").open("rb") as reader:
        write_atomically(str(tmp_path / "f"), b"new")
        assert reader.read() == b"old"
    assert (tmp_path / "f").read_bytes() == b"new"


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    """A link at the path is replaced: another user's link cannot make us overwrite another file."""
    (tmp_path / "victim").write_bytes(b"precious")
    (tmp_path / "f").symlink_to("victim")
    write_atomically(str(tmp_path / "f"), b"new")
    assert (tmp_path / "victim").read_bytes() == b"precious"
    assert not (tmp_path / "f").is_symlink()


def test_a_link_at_the_name_beside_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If another user guesses the temporary name, a link there is an error, and nothing is written through it."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    monkeypatch.setattr(os, "urandom", bytes)
    (tmp_path / ".file.00000000").symlink_to(victim)
    with pytest.raises(FileExistsError):
        write_atomically(str(tmp_path / "file"), b"new")
    assert victim.read_bytes() == b"precious"
    assert not (tmp_path / "file").exists()


def test_after_a_failure_nothing_is_left(tmp_path: Path) -> None:
    """After a failed write the target is as it was, and no temporary file remains."""
    (tmp_path / "f").mkdir()
    with pytest.raises(IsADirectoryError):
        write_atomically(str(tmp_path / "f"), b"new")
    assert os.listdir(tmp_path) == ["f"]


def test_a_regular_file_is_read_whole_up_to_the_limit(tmp_path: Path) -> None:
    """Exactly the limit is read; one byte more is refused, and the message has the limit."""
    (tmp_path / "f").write_bytes(b"x" * 1000)
    assert read_regular(str(tmp_path / "f"), limit=1000) == b"x" * 1000
    with pytest.raises(FormatError, match="larger than 999 bytes"):
        read_regular(str(tmp_path / "f"), limit=999)


def test_a_file_without_a_size_is_read(tmp_path: Path) -> None:
    """Files in /proc, whose size is 0, are read whole; an empty file gives no bytes."""
    assert read_regular("/proc/self/status").startswith(b"Name:")
    (tmp_path / "empty").touch()
    assert read_regular(str(tmp_path / "empty")) == b""


def test_what_is_no_regular_file_is_refused_without_waiting(tmp_path: Path) -> None:
    """A file that is not regular is refused by its kind, without a wait: a FIFO would block for ever."""
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        for path, kind in [
            (str(tmp_path), "a directory"),
            (str(tmp_path / "fifo"), "a FIFO"),
            (str(tmp_path / "socket"), "a socket"),
            ("/dev/null", "a character device"),
        ]:
            with pytest.raises(FormatError, match=f"is {kind}: put a regular file there"):
                read_regular(path)


def test_a_file_that_turns_into_a_fifo_does_not_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file is opened without waiting and looked at again, since it may have changed after the first look."""
    os.mkfifo(tmp_path / "f")
    (tmp_path / "file").touch()
    regular = os.stat(tmp_path / "file")
    monkeypatch.setattr(os, "stat", lambda _path: regular)
    with pytest.raises(FormatError, match="a FIFO"):
        read_regular(str(tmp_path / "f"))


def test_a_missing_file_is_the_systems_error(tmp_path: Path) -> None:
    """A missing file raises FileNotFoundError: the caller decides if that is an error."""
    with pytest.raises(FileNotFoundError):
        read_regular(str(tmp_path / "missing"))
