import os
import stat
from pathlib import Path

import pytest

from binfmtd.files import trust
from binfmtd.files.trust import Trust, judge, untrusted

DIRECTORY, FILE, LINK = stat.S_IFDIR, stat.S_IFREG, stat.S_IFLNK
ME = Trust(os.geteuid())


@pytest.mark.parametrize(
    ("uid", "mode", "trust", "blamed"),
    [
        (0, FILE | 0o755, Trust(0), None),
        (0, FILE | 0o755, Trust(1000), None),
        (1000, FILE | 0o755, Trust(1000), None),
        (1000, FILE | 0o755, Trust(0), "belongs to another user"),
        (1001, DIRECTORY | 0o755, Trust(1000), "belongs to another user"),
        (0, FILE | 0o775, Trust(0), "is writable by other users"),
        (0, FILE | 0o757, Trust(0), "is writable by other users"),
        (0, DIRECTORY | 0o777, Trust(0), "is writable by other users"),
        (0, DIRECTORY | 0o1777, Trust(0), None),
        (1000, DIRECTORY | 0o1777, Trust(0), "belongs to another user"),
        (0, FILE | 0o1777, Trust(0), "is writable by other users"),  # sticky means nothing on a file
        (0, LINK | 0o777, Trust(0), None),
        (1000, LINK | 0o777, Trust(0), "belongs to another user"),
        (65534, FILE | 0o755, Trust(0), "belongs to another user"),
        (65534, FILE | 0o755, Trust(0, unmapped=65534), None),
        (65534, FILE | 0o777, Trust(0, unmapped=65534), "is writable by other users"),
        (1000, FILE | 0o755, Trust(0, unmapped=65534), "belongs to another user"),
        (0, stat.S_IFCHR | 0o666, Trust(0), "is writable by other users"),  # /dev/null has to stay so
    ],
)
def test_owner_and_mode_decide(uid: int, mode: int, trust: Trust, blamed: str | None) -> None:
    """A file is trusted if root or we own it and no other user may write it.

    Sticky directories and links may have any mode, and an unmapped owner is accepted.
    """
    reason = judge("/does/not exist", uid, mode, trust)
    if blamed is None:
        assert reason is None
    else:
        assert reason is not None
        assert blamed in reason
        assert f"'/does/not exist' (owner {uid}, mode {stat.S_IMODE(mode):04o})" in reason
        assert ("run `ch" if stat.S_IFMT(mode) != stat.S_IFCHR else "use another path") in reason
        assert "\n" not in reason


def test_what_cannot_be_written_may_have_any_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file on a read-only mount may have any mode, as in a ConfigMap (0777), but not another user as its owner."""
    monkeypatch.setattr(trust, "unwritable", lambda _path, *, contained: contained)
    assert judge("/config", 0, FILE | 0o777, Trust(0, contained=True)) is None
    assert judge("/config", 0, FILE | 0o777, Trust(0)) is not None
    assert judge("/config", 1000, FILE | 0o777, Trust(0, contained=True)) is not None


def test_the_offending_directory_is_named(tmp_path: Path) -> None:
    """A file in a directory that another user can write is not trusted, and the message names the directory."""
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    (tmp_path / "open" / "qemu").write_bytes(b"x")
    reason = untrusted(str(tmp_path / "open" / "qemu"), ME)
    assert reason is not None
    assert f"chmod go-w '{tmp_path / 'open'}'" in reason
    (tmp_path / "open").chmod(0o755)
    assert untrusted(str(tmp_path / "open" / "qemu"), ME) is None


def test_the_way_through_a_link_is_judged(tmp_path: Path) -> None:
    """A link in a trusted directory into an untrusted one is not trusted."""
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o775)
    (tmp_path / "open" / "qemu").write_bytes(b"x")
    (tmp_path / "link").symlink_to("open/qemu")
    reason = untrusted(str(tmp_path / "link"), ME)
    assert reason is not None
    assert f"'{tmp_path / 'open'}'" in reason


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_sticky_directory_is_as_good_as_the_owner_of_what_lies_in_it(tmp_path: Path) -> None:
    """In a sticky directory root's file passes; another user's file, or another user's link to root's, does not."""
    sticky = tmp_path / "sticky"
    sticky.mkdir()
    sticky.chmod(0o1777)
    for name in ("ours", "theirs"):
        (sticky / name).write_bytes(b"x")
    (sticky / "link").symlink_to("ours")
    os.chown(sticky / "theirs", 1000, 1000)
    os.chown(sticky / "link", 1000, 1000, follow_symlinks=False)
    assert untrusted(str(sticky / "ours"), Trust(0)) is None
    for name in ("theirs", "link"):
        reason = untrusted(str(sticky / name), Trust(0))
        assert reason is not None
        assert f"'{sticky / name}' (owner 1000" in reason


def test_what_is_missing_is_not_judged(tmp_path: Path) -> None:
    """A missing file is not untrusted: if it has to exist, the caller checks that."""
    assert untrusted(str(tmp_path / "missing"), ME) is None


def test_the_trusted_user_is_the_effective_one() -> None:
    """The trusted user is our effective one; the overflow id is taken only inside a user namespace."""
    trust = Trust.of_this_process()
    assert trust.euid == os.geteuid()
    outside = os.readlink("/proc/self/ns/user") == "user:[4026531837]"
    assert (trust.unmapped is None) == outside


def test_in_a_user_namespace_the_overflow_id_is_the_unmapped_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """In any user namespace but the initial one the overflow id is the unmapped owner."""
    monkeypatch.setattr(os, "readlink", lambda _path: "user:[4026532000]")
    assert Trust.of_this_process().unmapped == int(Path("/proc/sys/kernel/overflowuid").read_text("ascii"))
