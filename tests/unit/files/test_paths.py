import errno
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from binfmtd.errors import FormatError
from binfmtd.files.paths import ITSELF, LINKS, Seen, resolve


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a directory whose own path contains no links."""
    return tmp_path.resolve()


def pairs(root: Path, *relative: tuple[str, str]) -> list[tuple[str, str]]:
    """Return each directory on the way to ``root``, itself included, and then these."""
    way = [(str(each), ITSELF) for each in (*reversed(root.parents), root) if each.name]
    return way + [(os.path.normpath(root / directory), name) for directory, name in relative]


def test_a_plain_file_is_watched_and_each_directory_above(root: Path) -> None:
    """A file is watched by its name, and each directory above as such: any of them may be exchanged by rename.

    Every directory is a step.
    """
    (root / "qemu").write_bytes(b"x")
    chain = resolve(str(root / "qemu"))
    assert chain.real == str(root / "qemu")
    assert chain.stat == os.stat(root / "qemu")
    assert list(chain.watched) == pairs(root, (".", "qemu"))
    assert [step.path for step in chain.steps] == [*map(str, reversed(root.parents)), str(root), str(root / "qemu")]
    assert all(step.stat is not None for step in chain.steps)


def test_each_link_is_watched_and_the_file(root: Path) -> None:
    """Absolute, relative and chained links are each watched, since any of them may be pointed elsewhere."""
    (root / "a").mkdir()
    (root / "b").mkdir()
    (root / "b" / "real").write_bytes(b"x")
    (root / "b" / "second").symlink_to("real")
    (root / "a" / "first").symlink_to(root / "b" / "second")
    chain = resolve(str(root / "a" / "first"))
    assert chain.real == str(root / "b" / "real")
    assert list(chain.watched) == pairs(
        root, ("a", ITSELF), ("a", "first"), ("b", ITSELF), ("b", "second"), ("b", "real")
    )


def test_a_link_to_a_directory_in_the_middle(root: Path) -> None:
    """In ``current -> versions/2`` the link and its target are watched, by their real directories."""
    (root / "versions" / "2").mkdir(parents=True)
    (root / "versions" / "2" / "qemu").write_bytes(b"x")
    (root / "current").symlink_to("versions/2/")
    chain = resolve(str(root / "current" / "qemu"))
    assert chain.real == str(root / "versions" / "2" / "qemu")
    assert list(chain.watched) == pairs(
        root, (".", "current"), ("versions", ITSELF), ("versions/2", ITSELF), ("versions/2", "qemu")
    )


def test_where_dot_dot_comes_from_is_watched(root: Path) -> None:
    """In ``a/../b`` the directory ``a`` is watched: without it the path leads nowhere."""
    (root / "a").mkdir()
    (root / "b").mkdir()
    assert list(resolve(f"{root}/a/../b").watched) == pairs(root, ("a", ITSELF), ("b", ITSELF), (".", "b"))
    assert (f"{root}/a", ITSELF) in resolve(f"{root}/a/..").watched


def test_dot_dot_goes_up_from_where_a_link_led(root: Path) -> None:
    """``link/../x`` lies beside the link's target, as for the kernel, and not beside the link."""
    (root / "deep" / "down").mkdir(parents=True)
    (root / "deep" / "x").write_bytes(b"x")
    (root / "link").symlink_to("deep/down")
    assert resolve(f"{root}/link/../x").real == str(root / "deep" / "x")
    assert resolve("/../../").real == "/"


@pytest.mark.parametrize(
    ("path", "watched"),
    [
        ("missing", [("..", "1"), (".", "missing")]),
        ("missing/further/down", [("..", "1"), (".", "missing")]),
        ("there/missing/down", [("there", ITSELF), (".", "there"), ("there", "missing")]),
        ("missing/../there", [("..", "1"), (".", "missing")]),
    ],
)
def test_what_is_missing_is_watched_where_it_would_appear(
    root: Path, path: str, watched: list[tuple[str, str]]
) -> None:
    """For a missing path the nearest existing directory is watched, with the first name that is missing.

    That directory is watched by its own name, too: removed, but open in some process, it would not report its own
    end.
    """
    root /= "1"
    (root / "there").mkdir(parents=True)
    chain = resolve(f"{root}/{path}")
    assert (chain.real, chain.stat, chain.errno) == (None, None, errno.ENOENT)
    assert list(chain.watched) == pairs(root, *watched)
    assert chain.steps[-1].stat is None


def test_a_dangling_link_is_watched_at_both_ends(root: Path) -> None:
    """A dangling link is watched at both ends: its target may appear, or the link may be pointed elsewhere."""
    (root / "link").symlink_to("later/qemu")
    chain = resolve(str(root / "link"))
    assert chain.errno == errno.ENOENT
    assert list(chain.watched) == pairs(root, (".", "link"), ("..", root.name), (".", "later"))


def test_a_file_where_a_directory_should_be(root: Path) -> None:
    """A file in the place of a directory gives ENOTDIR, and is watched; a slash at the end asks for a directory."""
    (root / "file").write_bytes(b"x")
    for path in ("file/qemu", "file/..", "file/", "file/."):
        chain = resolve(f"{root}/{path}")
        assert (chain.real, chain.errno) == (None, errno.ENOTDIR)
        assert list(chain.watched) == pairs(root, (".", "file"))


def test_links_that_go_in_circles_end(root: Path) -> None:
    """A loop of links gives ELOOP, and every link of it is watched once."""
    (root / "a").symlink_to("b")
    (root / "b").symlink_to("a")
    chain = resolve(str(root / "a"))
    assert (chain.real, chain.errno) == (None, errno.ELOOP)
    assert list(chain.watched) == pairs(root, (".", "a"), (".", "b"))


@pytest.mark.parametrize("links", [LINKS, LINKS + 1])
def test_the_limit_is_the_kernels(root: Path, links: int) -> None:
    """``walk`` follows as many links as the kernel, and not one more."""
    (root / "0").write_bytes(b"x")
    for number in range(links):
        (root / str(number + 1)).symlink_to(str(number))
    try:
        os.stat(root / str(links))
        expected = 0
    except OSError as error:
        expected = error.errno or 0
    assert resolve(str(root / str(links))).errno == expected


def test_links_to_directories_alone(root: Path) -> None:
    """A path that ends in a link to a directory, or to the root, leads there."""
    (root / "up").symlink_to("..")
    (root / "top").symlink_to("/")
    assert resolve(str(root / "up")).real == str(root.parent)
    assert resolve(str(root / "top")).real == "/"


@pytest.mark.skipif(os.geteuid() == 0, reason="root searches every directory")
def test_a_directory_that_may_not_be_searched_is_watched_itself(root: Path) -> None:
    """A directory that may not be searched is watched: a chmod of it changes the outcome."""
    (root / "closed").mkdir(mode=0)
    chain = resolve(str(root / "closed" / "qemu"))
    assert chain.errno == errno.EACCES
    assert list(chain.watched) == pairs(root, ("closed", ITSELF), (".", "closed"))


def test_a_round_looks_at_each_component_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """33 interpreters in one directory cost 33 lstat calls and those of the directory, once."""
    for number in range(5):
        (root / str(number)).write_bytes(b"x")
    looked_at: list[str] = []
    lstat = os.lstat

    def counted(path: str) -> os.stat_result:
        looked_at.append(path)
        return lstat(path)

    monkeypatch.setattr(os, "lstat", counted)
    seen: Seen = {}
    for number in range(5):
        resolve(str(root / str(number)), seen)
        resolve(str(root / f"missing{number}"), seen)
    monkeypatch.undo()
    assert len(looked_at) == len(set(looked_at))


@pytest.mark.parametrize("path", ["", "usr/bin/qemu", "/usr/\0/bin"])
def test_only_absolute_paths_are_walked(path: str) -> None:
    """Any path that is not absolute is a FormatError."""
    with pytest.raises(FormatError, match="absolute"):
        resolve(path)


NAMES = ["a", "b", "c"]
PARTS = st.lists(st.sampled_from([*NAMES, "..", "."]), min_size=1, max_size=4).map("/".join)


@given(
    links=st.dictionaries(st.sampled_from(NAMES), PARTS, max_size=3),
    files=st.sets(st.sampled_from(["a", "b/a", "b/b", "c/a"])),
    path=PARTS,
)
def test_a_walk_ends_where_the_kernel_ends(
    tmp_path_factory: pytest.TempPathFactory, links: dict[str, str], files: set[str], path: str
) -> None:
    """For any tangle of links and files, the result is that of stat(2) and realpath, or its errno."""
    root = tmp_path_factory.mktemp("tangle").resolve() / "1" / "2" / "3" / "4"  # no `..` leads out
    root.mkdir(parents=True)
    for file in files:
        (root / file).parent.mkdir(exist_ok=True)
        (root / file).write_bytes(b"x")
    for name, target in links.items():
        if not (root / name).exists():
            (root / name).symlink_to(target)
    chain = resolve(f"{root}/{path}")
    expected: os.stat_result | int | None
    try:
        expected = os.stat(f"{root}/{path}")
    except OSError as error:
        expected = error.errno
    if isinstance(expected, os.stat_result):
        assert chain.stat is not None
        assert os.path.samestat(chain.stat, expected)
        assert chain.real == os.path.realpath(f"{root}/{path}")
    else:
        assert (chain.real, chain.stat, chain.errno) == (None, None, expected)
    assert all(os.path.realpath(directory) == directory for directory, _ in chain.watched)


def test_a_link_of_the_kernels_own_may_be_more_than_its_text(root: Path) -> None:
    """A link /proc/PID/fd/N to a removed file leads elsewhere than its text: the walk ends there, and names it."""
    with (root / "gone").open("wb") as file:
        link = f"/proc/self/fd/{file.fileno()}"
        assert resolve(link).real == str(root / "gone")
        assert resolve(link).magic is None
        (root / "gone").unlink()
        os.stat(link)
        chain = resolve(link)
        assert (chain.real, chain.errno) == (None, errno.EXDEV)
        assert chain.magic == f"/proc/{os.getpid()}/fd/{file.fileno()}"


def test_inside_of_a_root(root: Path) -> None:
    """With a root directory absolute links and ``..`` stay inside, and paths are as a process in there sees them."""
    (root / "tree" / "usr" / "bin").mkdir(parents=True)
    (root / "tree" / "usr" / "bin" / "tool").write_bytes(b"x")
    (root / "tree" / "bin").symlink_to("/usr/bin")
    (root / "tree" / "out").symlink_to("../../../usr/bin/tool")
    tree = str(root / "tree")
    for path in ("/bin/tool", "/../../bin/tool", "/out", "/usr/bin/../../bin/tool"):
        chain = resolve(path, root=tree)
        assert (chain.real, chain.errno) == ("/usr/bin/tool", 0), path
        assert chain.stat == os.stat(root / "tree" / "usr" / "bin" / "tool")
    assert resolve("/bin/sh", root=tree).errno == errno.ENOENT
    assert resolve("/..", root=tree).stat == os.stat(tree)
