"""The mount table, as proc_pid_mountinfo(5) describes it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from binfmtd.formats.mountinfo import MountLine, parse_mountinfo

PLAIN = b"36 35 0:39 / /proc/sys/fs/binfmt_misc rw,nosuid - binfmt_misc binfmt_misc rw"
FOUND = MountLine(
    36, (0, 39), "/", "/proc/sys/fs/binfmt_misc", read_only=False, superblock_read_only=False, fs_type="binfmt_misc"
)


@pytest.mark.parametrize(
    "line",
    [
        PLAIN,
        PLAIN.replace(b" - ", b" shared:5 - "),
        PLAIN.replace(b" - ", b" shared:5 unbindable - "),
        PLAIN.replace(b" binfmt_misc rw", b"  rw"),  # a mount may have an empty source
        PLAIN + b" more fields",
    ],
)
def test_optional_fields_are_passed_over(line: bytes) -> None:
    """Optional fields are skipped, however many there are: the type follows the lone dash."""
    assert parse_mountinfo(line + b"\n") == (FOUND,)


def test_a_mount_that_follows_another() -> None:
    """A mount with the optional field ``master`` follows another; a type or a source of that name does not count."""
    assert parse_mountinfo(PLAIN.replace(b" - ", b" shared:5 master:1 propagate_from:2 - "))[0].follows
    assert not parse_mountinfo(PLAIN.replace(b" - ", b" shared:5 - master:1 "))[0].follows


@pytest.mark.parametrize(
    ("options", "of_the_file_system"),
    [(b"ro,nosuid", b"rw"), (b"rw", b"ro"), (b"nosuid,ro", b"rw,size=1")],
)
def test_read_only_by_the_mount_or_the_file_system(options: bytes, of_the_file_system: bytes) -> None:
    """The option of the mount or of the file system makes it read-only, and only a whole word counts."""
    (found,) = parse_mountinfo(b"1 2 0:3 / /m " + options + b" - t s " + of_the_file_system)
    assert found.read_only
    assert found.superblock_read_only is (of_the_file_system == b"ro")
    assert not parse_mountinfo(b"1 2 0:3 / /m rw,errors=remount-ro - t s rw,rodent")[0].read_only


@pytest.mark.parametrize(
    ("written", "point"),
    [
        (rb"/a\040b", "/a b"),
        (rb"/a\011b\012c", "/a\tb\nc"),
        (rb"/a\134040", r"/a\040"),
        (b"/\xe4", "/\udce4"),
        (rb"/\777", "/\udcff"),
        (b"/-", "/-"),
        # The kernel does not escape it.  If it ended a line, a process could hide a mount, or invent one.
        (b"/a\rb", "/a\rb"),
    ],
)
def test_a_mount_point_is_unescaped_once(written: bytes, point: str) -> None:
    """The kernel's octal escapes are decoded once, and bytes that are not UTF-8 stay as they are."""
    (found,) = parse_mountinfo(b"1 2 0:3 / " + written + b" rw - t s rw\n")
    assert found.point == point


def test_mounts_keep_their_order_and_what_is_not_understood_is_left_out() -> None:
    """Mounts are in the order of the table, the oldest first; of several at one place the last is on top."""
    table = b"\n".join(
        [PLAIN, b"nonsense", b"", b"x" + PLAIN, PLAIN.replace(b"36 ", b"37 "), PLAIN[:40], b"1 2 03 / /m rw - t s rw"]
    )
    assert [line.mount_id for line in parse_mountinfo(table)] == [36, 37]


@given(text=st.binary(max_size=100))
def test_arbitrary_bytes_are_never_an_error(text: bytes) -> None:
    """No bytes in the table raise an error, and the lines before them are parsed."""
    assert parse_mountinfo(PLAIN + b"\n" + text)[0] == FOUND


FIELDS = st.lists(
    st.sampled_from([b"1", b"-", b"0:3", b"0:3:4", b"x:y", b"/m", b"rw", b"", b"\\999", b"9" * 5000]), max_size=12
)


@given(fields=FIELDS)
def test_fields_in_any_order_are_never_an_error(fields: list[bytes]) -> None:
    """Fields that are nearly a line raise no error."""
    assert len(parse_mountinfo(b" ".join(fields))) <= 1
