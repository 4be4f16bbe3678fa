"""The layers of an image, as tars made by hand: what is unpacked, what is ignored, and the limits."""

import io
import os
import tarfile
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.tars import Member, directory, hard_link, stream, symlink, tar

from binfmtd.catalog.architectures import CATALOG
from binfmtd.cli.store.layers import (
    DEEPEST,
    PATH_CHARACTERS,
    Limits,
    Unpacked,
    Unpacker,
    architecture_of_file,
)
from binfmtd.errors import StoreError

ARM, ARM64 = "usr/bin/qemu-arm", "usr/bin/qemu-aarch64"


def unpack(where: Path, *layers: list[Member], limits: Limits | None = None) -> dict[str, bytes]:
    """Return the content of each emulator after these layers, by its path in the image."""
    where.mkdir(exist_ok=True)
    unpacker = Unpacker(str(where), limits)
    for layer in layers:
        unpacker.add_layer(stream(layer), "image")
    return contents(unpacker.found())


def contents(found: dict[str, Unpacked]) -> dict[str, bytes]:
    return {path: Path(file.path).read_bytes() for path, file in found.items()}


@pytest.mark.parametrize(
    ("name", "architecture"),
    [
        *((f"qemu-{name}", name) for name in CATALOG),
        *((f"qemu-{name}-static", name) for name in CATALOG),
        ("qemu-arm-static-static", None),
        ("qemu-arm64", None),  # QEMU's own names alone
        ("qemu-", None),
        ("qemu--static", None),
        ("qemu-system-arm", None),
        ("buildkit-qemu-arm", None),
        ("qemu-arm.bak", None),
        ("Qemu-arm", None),
        ("qemu-arm\n", None),
    ],
)
def test_names(name: str, architecture: str | None) -> None:
    """The names of emulators are QEMU's, with or without -static."""
    assert architecture_of_file(name) == architecture


def test_regular_files(tmp_path: Path) -> None:
    """Emulators anywhere in the image are unpacked, under paths without /, ./ and empty parts; nothing else is."""
    layer = [
        directory("usr/bin"),
        Member(ARM, b"arm"),
        Member("./opt//qemu-aarch64-static", b"arm64"),
        Member("/qemu-sh4", b"sh4"),
        Member("usr/bin/bash", b"bash"),
        Member("usr/bin/qemu-img", b"img"),
    ]
    found = unpack(tmp_path, layer)
    assert found == {ARM: b"arm", "opt/qemu-aarch64-static": b"arm64", "qemu-sh4": b"sh4"}
    assert sorted(os.listdir(tmp_path)) == ["1", "2", "3"]


@pytest.mark.parametrize("name", ["../qemu-arm", "usr/../../qemu-arm", "/..//qemu-arm", "a/b/../qemu-arm", ".."])
def test_upward(tmp_path: Path, name: str) -> None:
    """A member whose path has .. is ignored."""
    assert unpack(tmp_path / "in", [Member(name, b"arm"), Member(ARM64, b"arm64")]) == {ARM64: b"arm64"}
    assert os.listdir(tmp_path) == ["in"]


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.CONTTYPE, b"Z"])
def test_special_files(tmp_path: Path, kind: bytes) -> None:
    """Devices, FIFOs and unknown kinds are ignored; tar's older name for a regular file is not."""
    found = unpack(tmp_path, [Member(ARM, kind=kind), Member(ARM64, b"arm64")])
    assert found == {ARM64: b"arm64"} | ({ARM: b""} if kind == tarfile.CONTTYPE else {})


def test_links(tmp_path: Path) -> None:
    """Links lead to emulators of the same image, across directories and layers, and nowhere else."""
    (tmp_path / "secret").write_text("secret")
    below = [Member(ARM, b"arm"), Member("usr/bin/other", b"other")]
    layer = [
        symlink("usr/bin/qemu-arm-static", "qemu-arm"),
        symlink("bin/qemu-arm", "../usr/bin/qemu-arm-static"),
        symlink("a/qemu-arm", "/usr/bin/qemu-arm"),
        symlink("b/qemu-arm", "../../../usr/bin/qemu-arm"),  # the root is the image's
        hard_link("c/qemu-arm", "./usr/bin/qemu-arm"),
        hard_link("d/qemu-arm", "../usr/bin/qemu-arm"),
        hard_link("e/qemu-arm", "usr/bin/other"),
        symlink("f/qemu-arm", "other"),
        symlink("g/qemu-arm", f"{tmp_path}/secret"),
        hard_link("h/qemu-arm", f"{tmp_path}/secret"),
        symlink("i/qemu-arm", "qemu-arm"),  # to itself
        symlink("j/qemu-arm", "/"),
        symlink("k/qemu-arm", ""),
    ]
    names = set(unpack(tmp_path / "in", below, layer))
    assert names == {ARM, "usr/bin/qemu-arm-static", "bin/qemu-arm", "a/qemu-arm", "b/qemu-arm", "c/qemu-arm"}


def test_a_hard_link_keeps_the_file(tmp_path: Path) -> None:
    """A hard link is another name of the file: a whiteout of the first name does not concern it."""
    below = [Member(ARM, b"arm"), hard_link("usr/bin/qemu-arm-static", ARM)]
    assert unpack(tmp_path, below, [Member("usr/bin/.wh.qemu-arm")]) == {"usr/bin/qemu-arm-static": b"arm"}


@pytest.mark.parametrize(
    "layer",
    [
        [Member("usr/bin/.wh.qemu-arm")],
        [Member("usr/.wh.bin")],
        [Member(".wh.usr")],
        [Member("usr/bin/.wh..wh..opq")],
        [Member("usr/.wh..wh..opq")],
        [Member(".wh..wh..opq")],
        [directory(ARM)],
        [symlink(ARM, "nothing")],
        [Member(ARM, kind=tarfile.FIFOTYPE)],
        [symlink("usr/bin", "/bin")],
        [Member("usr", b"a file")],
    ],
    ids=lambda layer: f"{layer[0].name} {layer[0].kind.decode()}",
)
def test_hidden_by_the_next_layer(tmp_path: Path, layer: list[Member]) -> None:
    """Whiteouts, and members of another kind, hide what the layers below have there; a later layer may add it again."""
    below = [Member(ARM, b"arm"), Member("opt/qemu-sh4", b"sh4")]
    rest = {} if layer[0].name == ".wh..wh..opq" else {"opt/qemu-sh4": b"sh4"}
    assert unpack(tmp_path / "one", below, layer) == rest
    assert unpack(tmp_path / "two", below, layer, [Member(ARM, b"new")]) == {ARM: b"new", **rest}


def test_a_whiteout_does_not_concern_its_own_layer(tmp_path: Path) -> None:
    """A file of the same layer stays, before and after the whiteout (image-spec, layer.md)."""
    below = [Member(ARM, b"old"), Member(ARM64, b"arm64")]
    for place, opaque in enumerate(("usr/bin/.wh..wh..opq", "usr/bin/.wh.qemu-arm")):
        layer = [Member(ARM, b"new"), Member(opaque), Member("usr/bin/qemu-sh4", b"sh4")]
        expected = {ARM: b"new", "usr/bin/qemu-sh4": b"sh4"} | ({ARM64: b"arm64"} if place else {})
        assert unpack(tmp_path / str(place), below, layer) == expected


def test_the_last_member_of_a_name_counts(tmp_path: Path) -> None:
    """As with tar(1), a later member replaces an earlier one; a directory above a file changes nothing."""
    assert unpack(tmp_path, [Member(ARM, b"old"), directory("usr/bin"), Member(ARM, b"new")]) == {ARM: b"new"}


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (Limits(file=999), r"image: 'usr/bin/qemu-arm' has 1000 bytes, more than the 999 that an emulator may have"),
        (Limits(total=1999), r"image: 'usr/bin/qemu-aarch64': its emulators have more than 1999 bytes"),
        (Limits(entries=2), r"image: there are more than 2 files, which is the limit"),
        (Limits(candidates=1), r"image: more than 1 files have the name of an emulator"),
    ],
)
def test_limits(tmp_path: Path, limits: Limits, message: str) -> None:
    """More than a limit allows is an error that names the image and the limit."""
    layer = [Member(ARM, bytes(1000)), Member("other", bytes(5000)), Member(ARM64, bytes(1000))]
    with pytest.raises(StoreError, match=message):
        unpack(tmp_path, layer, limits=limits)
    assert len(unpack(tmp_path / "fits", layer, limits=Limits(1000, 2000, 3, 2))) == 2


def test_hidden_files_count(tmp_path: Path) -> None:
    """A file that another layer hides has been unpacked, so it counts for the limit."""
    layers = [[Member(ARM, bytes(1000))], [Member("usr/.wh.bin")], [Member(ARM, bytes(1000))]]
    with pytest.raises(StoreError, match="more than 1500 bytes"):
        unpack(tmp_path, *layers, limits=Limits(total=1500))


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK])
def test_long_headers(tmp_path: Path, kind: bytes) -> None:
    """Headers that tarfile would read into memory are limited; an ordinary long name is not."""
    text = b"30 comment=" + b"x" * 18 + b"\n" if kind in (tarfile.XHDTYPE, tarfile.XGLTYPE) else b"usr/bin/qemu-arm\0"
    assert unpack(tmp_path / "fits", [Member("long", text, kind), Member(ARM, b"arm")])
    bomb = [Member("long", text * 200_000, kind), Member(ARM, b"arm")]
    with pytest.raises(StoreError, match="image: the headers of a file in it are too long"):
        unpack(tmp_path / "bomb", bomb)


def test_large_members_are_skipped(tmp_path: Path) -> None:
    """The data of other files is no header: its size has no limit of its own."""
    assert unpack(tmp_path, [Member("other", bytes(5 << 20)), Member(ARM, b"arm")]) == {ARM: b"arm"}


def test_depth_and_length(tmp_path: Path) -> None:
    """An emulator in too many directories, with too long a path, or too long a link, is ignored."""
    layer = [
        Member("d/" * DEEPEST + "qemu-arm", b"arm"),
        Member("d/" * (DEEPEST + 1) + "qemu-arm", b"arm"),
        Member("d" * (PATH_CHARACTERS - 9) + "/qemu-arm", b"arm"),
        Member("d" * PATH_CHARACTERS + "/qemu-arm", b"arm"),
        symlink("a/qemu-arm", "../" * PATH_CHARACTERS + "d" * (PATH_CHARACTERS - 9) + "/qemu-arm"),
    ]
    assert [len(path) for path in unpack(tmp_path, layer)] == [2 * DEEPEST + 8, PATH_CHARACTERS]


def test_many_layers(tmp_path: Path) -> None:
    """The number of layers is limited as well."""
    with pytest.raises(StoreError, match="image: there are more than 2 layers, which is the limit"):
        unpack(tmp_path, [], [], [], limits=Limits(layers=2))


def test_sparse_files(tmp_path: Path) -> None:
    """A sparse file, whose size says nothing about the tar's, is refused."""
    with pytest.raises(StoreError, match="image: 'sparse' is a sparse file, or damaged: pack it again"):
        unpack(tmp_path, [Member("sparse", b"", tarfile.GNUTYPE_SPARSE)])


def test_cut_off(tmp_path: Path) -> None:
    """A tar that ends within a file, and a file that is no tar, are errors that name the image."""
    for data in (tar([Member(ARM, bytes(5000))])[:2000], b"no tar at all" * 100, b"x"):
        unpacker = Unpacker(str(tmp_path))
        with pytest.raises(StoreError, match=r"^image: .*: get it again$"):
            unpacker.add_layer(io.BytesIO(data), "image")
        for name in os.listdir(tmp_path):
            (tmp_path / name).unlink()


def test_a_directory(tmp_path: Path) -> None:
    """Of a directory its own regular files count, and links to them; FIFOs and what lies deeper do not."""
    source, target = tmp_path / "source", tmp_path / "target"
    (source / "deeper").mkdir(parents=True)
    target.mkdir()
    (source / "qemu-arm").write_bytes(b"arm")
    (source / "deeper" / "qemu-sh4").write_bytes(b"sh4")
    (source / "qemu-arm-static").symlink_to("qemu-arm")
    (source / "qemu-mips").symlink_to("../source/qemu-arm")
    (source / "qemu-aarch64").symlink_to("/etc/passwd")
    os.mkfifo(source / "qemu-ppc")
    (source / "qemu-riscv64").mkdir()
    unpacker = Unpacker(str(target))
    unpacker.add_directory(str(source))
    assert contents(unpacker.found()) == {"qemu-arm": b"arm", "qemu-arm-static": b"arm"}
    (tmp_path / "other").mkdir()
    with pytest.raises(StoreError, match="more than 3 files"):
        Unpacker(str(tmp_path / "other"), Limits(entries=3)).add_directory(str(source))


NAMES = st.sampled_from(
    ["qemu-arm", "qemu-sh4-static", "x", "..", ".", "", ".wh.qemu-arm", ".wh..wh..opq", "usr", "a\udcff"]
)
PATHS = st.lists(NAMES, min_size=1, max_size=5).map("/".join)
KINDS = st.sampled_from([tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
SIZES = st.none() | st.integers(-1, 2000)
MEMBERS = st.builds(Member, PATHS, st.binary(max_size=20), KINDS, PATHS, SIZES)


@given(layers=st.lists(st.lists(MEMBERS, max_size=8), max_size=3))
def test_never_writes_elsewhere(layers: list[list[Member]]) -> None:
    """Whatever the layers contain, only numbered regular files are in the directory, and none beside it."""
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        (place / "in").mkdir()
        unpacker = Unpacker(str(place / "in"))
        with suppress(StoreError):  # a member that claims another size than it has
            for layer in layers:
                unpacker.add_layer(stream(layer), "image")
        assert os.listdir(place) == ["in"]
        files = list(os.scandir(place / "in"))
        assert all(file.name.isdecimal() and file.is_file(follow_symlinks=False) for file in files)
        assert {path.split("/")[-1] for path in unpacker.found()} <= {"qemu-arm", "qemu-sh4-static"}
        assert not any(".." in path.split("/") for path in unpacker.found())


@given(data=st.binary(max_size=3000), after=st.binary(max_size=600))
def test_any_bytes(data: bytes, after: bytes) -> None:
    """Any bytes are a tar or one error, also behind a whole member."""
    for each in (data, tar([Member(ARM, b"arm")], end=False) + after):
        with tempfile.TemporaryDirectory() as directory:
            try:
                Unpacker(directory).add_layer(io.BytesIO(each), "image")
            except StoreError as error:
                assert str(error).startswith("image: ")  # noqa: PT017  other errors fail the test
