"""The binfmt.d files that count: as systemd-binfmt 257 was seen to choose them in each of these trees."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from binfmtd.files.binfmt_d import conf_files


@pytest.fixture
def directories(tmp_path: Path) -> list[Path]:
    """Return two directories, the first with the higher precedence."""
    found = [tmp_path / "etc", tmp_path / "lib"]
    for directory in found:
        directory.mkdir()
    return found


def names(*directories: Path) -> list[str]:
    files, errors = conf_files(map(str, directories))
    assert errors == ()
    return [f"{Path(file).parent.name}/{Path(file).name}" for file in files]


def test_all_are_sorted_by_name_over_the_directories(directories: list[Path]) -> None:
    """Files of all directories are sorted by the bytes of their names, as strcmp does: capitals come first."""
    etc, lib = directories
    for path in (etc / "b.conf", etc / "\u00e4.conf", lib / "a.conf", lib / "B.conf", lib / "10.conf"):
        path.write_text("x")
    assert names(etc, lib) == ["lib/10.conf", "lib/B.conf", "lib/a.conf", "etc/b.conf", "etc/\u00e4.conf"]


def test_only_visible_conf_files_count(directories: list[Path]) -> None:
    """Files that an editor or a package manager leaves there do not count."""
    for name in ("a.conf~", "a.conf.dpkg-new", ".a.conf", "README", "conf"):
        (directories[0] / name).write_text("x")
    assert names(*directories) == []


def test_the_higher_replaces_the_whole_file(directories: list[Path]) -> None:
    """Of two files with one name only the one in the higher directory counts, at its place in the order."""
    for directory in directories:
        (directory / "a.conf").write_text("x")
    assert names(*directories) == ["etc/a.conf"]


@pytest.mark.parametrize(
    "make", [lambda path: path.symlink_to("/dev/null"), lambda path: path.write_text(""), lambda path: path.touch()]
)
def test_masked(directories: list[Path], make: Callable[[Path], object]) -> None:
    """A link to /dev/null or an empty file hides the lower one, and does not count itself."""
    make(directories[0] / "a.conf")
    (directories[1] / "a.conf").write_text("x")
    assert names(*directories) == []


@pytest.mark.parametrize("make", [lambda path: path.symlink_to("nowhere"), Path.mkdir, os.mkfifo])
def test_what_is_no_file_hides_the_lower_one_all_the_same(
    directories: list[Path], make: Callable[[Path], object]
) -> None:
    """The name alone hides the lower file, even if no regular file has it; the error comes when it is read."""
    make(directories[0] / "a.conf")
    (directories[1] / "a.conf").write_text("x")
    assert names(*directories) == ["etc/a.conf"]


def test_directories_may_be_absent(directories: list[Path], tmp_path: Path) -> None:
    """A missing directory is no error: most hosts have two of the four."""
    (directories[0] / "a.conf").write_text("x")
    assert names(tmp_path / "gone", directories[0]) == ["etc/a.conf"]


def test_what_is_no_directory_is_an_error_of_its_own(directories: list[Path], tmp_path: Path) -> None:
    """A path that is no directory is an error beside the result, and the other directories count."""
    (tmp_path / "file").write_text("")
    (directories[0] / "a.conf").write_text("x")
    files, errors = conf_files([str(tmp_path / "file"), str(directories[0])])
    assert files == (str(directories[0] / "a.conf"),)
    assert [error.filename for error in errors] == [str(tmp_path / "file")]
