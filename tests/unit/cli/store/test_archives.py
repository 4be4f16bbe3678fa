"""The kind of what is imported, by its content."""

import bz2
import gzip
import json
import lzma
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.tars import Member, tar

from binfmtd.cli.store.archives import Kind, Source, look_at
from binfmtd.errors import StoreError, UsageError

NAME = "org.opencontainers.image.ref.name"


def index(*images: tuple[str, str | None]) -> bytes:
    """Return index.json for images: digest and name of each."""
    manifests = [{"digest": digest, "annotations": {NAME: name} if name else None} for digest, name in images]
    return json.dumps({"schemaVersion": 2, "manifests": manifests}).encode()


def docker(*images: list[str]) -> bytes:
    return json.dumps([{"Config": "x", "RepoTags": tags, "Layers": []} for tags in images]).encode()


def test_oci_archives(tmp_path: Path) -> None:
    """An OCI archive is known by its index.json, compressed or not, and also if it is one of Docker's, too."""
    content = tar(
        [Member("blobs/x", b"x"), Member("index.json", index(("sha256:1", None))), Member("oci-layout", b"{}")]
    )
    both = tar([Member("manifest.json", docker(["a:1"])), Member("./index.json", index(("sha256:1", "a")))])
    path = str(tmp_path / "archive")
    for data in (content, gzip.compress(content), bz2.compress(content), lzma.compress(content), both):
        Path(path).write_bytes(data)
        assert look_at(path, None) == Source(Kind.OCI_ARCHIVE, path, f"oci-archive:{path}", "sha256:1")


def test_docker_archives(tmp_path: Path) -> None:
    """`docker save` of older versions has only manifest.json; one of several images has to be chosen."""
    path = str(tmp_path / "archive")
    Path(path).write_bytes(tar([Member("manifest.json", docker(["a:1", "a:2"]))]))
    assert look_at(path, None) == Source(Kind.DOCKER_ARCHIVE, path, f"docker-archive:{path}")
    Path(path).write_bytes(tar([Member("index.json", b'{"manifests": null}'), Member("manifest.json", docker([]))]))
    assert look_at(path, None) == Source(Kind.DOCKER_ARCHIVE, path, f"docker-archive:{path}")
    Path(path).write_bytes(tar([Member("manifest.json", docker(["a:1"], ["b:1"]))]))
    assert look_at(path, "b:1").reference == f"docker-archive:{path}:@1"
    with pytest.raises(UsageError, match=r"it has 2 images \(a:1, b:1\): choose one with --image"):
        look_at(path, None)


def test_several_images_of_docker(tmp_path: Path) -> None:
    """`docker save a b`, from Docker 25 on: index.json names both `latest`, and only manifest.json has whole names."""
    path = str(tmp_path / "archive")
    listed = Member("index.json", index(("sha256:1", "latest"), ("sha256:2", "latest")))
    Path(path).write_bytes(tar([listed, Member("manifest.json", docker(["a:latest"], ["b:latest"]))]))
    assert look_at(path, "b:latest") == Source(Kind.DOCKER_ARCHIVE, path, f"docker-archive:{path}:@1")
    with pytest.raises(UsageError, match=r"it has 2 images \(a:latest, b:latest\): choose one with --image"):
        look_at(path, None)
    one = Member("index.json", index(("sha256:2", None)))  # `docker save a@DIGEST b@DIGEST`
    Path(path).write_bytes(tar([one, Member("manifest.json", docker([], []))]))
    with pytest.raises(UsageError, match="it has 2 images"):
        look_at(path, None)
    Path(path).write_bytes(tar([listed]))
    with pytest.raises(UsageError, match="2 images in it have the name 'latest': save the one alone"):
        look_at(path, "latest")


def test_layouts(tmp_path: Path) -> None:
    """A directory with oci-layout is a layout.  Of several images one is chosen by its name."""
    (tmp_path / "oci-layout").write_text("{}")
    path = str(tmp_path)
    (tmp_path / "index.json").write_bytes(index(("sha256:1", "one")))
    assert look_at(path, None) == Source(Kind.OCI_LAYOUT, path, f"oci:{path}", "sha256:1")
    (tmp_path / "index.json").write_bytes(index(("sha256:1", "one"), ("sha256:2", "two"), ("sha256:3", None)))
    assert look_at(path, "two") == Source(Kind.OCI_LAYOUT, path, f"oci:{path}:two", "sha256:2")
    with pytest.raises(UsageError, match=r"it has 3 images \(one, two\): choose one with --image"):
        look_at(path, None)
    (tmp_path / "index.json").write_bytes(index(("sha256:1", "one"), ("sha256:1", "two")))  # two names for one image
    assert look_at(path, None).reference == f"oci:{path}:one"
    (tmp_path / "index.json").write_bytes(index(("sha256:1", None), ("sha256:1", None)))
    with pytest.raises(UsageError, match="the image has no name, so skopeo cannot choose it"):
        look_at(path, None)
    (tmp_path / "index.json").unlink()
    os.mkfifo(tmp_path / "index.json")
    with pytest.raises(StoreError, match=r"index.json' is a FIFO"):
        look_at(path, None)


def test_the_rest(tmp_path: Path) -> None:
    """Another directory has files itself; a .deb is known by its first member."""
    assert look_at(str(tmp_path), None) == Source(Kind.DIRECTORY, str(tmp_path))
    path = str(tmp_path / "x.deb")
    Path(path).write_bytes(b"!<arch>\ndebian-binary   1410122664  0     0     100644  4         `\n2.0\n")
    assert look_at(path, None) == Source(Kind.DEB, path)
    with pytest.raises(UsageError, match="--image has no meaning"):
        look_at(path, "one")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is no archive"),
        (b"text " * 1000, "it is no archive"),
        (gzip.compress(b"text " * 1000, mtime=0), "it is no archive"),
        (gzip.compress(tar([Member("x", bytes(100_000))]), mtime=0)[:100], "it is no archive, or damaged"),
        (b"\x1f\x8b", "it is no archive"),
        (b"\xfd7zXZ\0junk", "it is no archive"),
        (b"BZh9junk", "it is no archive"),
        (tar([Member("x", b"x")]), "it is no archive with an image"),
        (b"\x28\xb5\x2f\xfd and more", r"it is compressed with zstd: run `zstd -d` on it first"),
        (tar([Member("index.json", b"[]")]), "index.json: it is not a JSON object"),
        (tar([Member("index.json", b"{}")]), "index.json: it is no OCI index"),
        (tar([Member("manifest.json", b"{}")]), "it has 0 images"),
        (tar([Member("manifest.json", b"[1]")]), "manifest.json: it is no list of images"),
        (tar([Member("manifest.json", b"[")]), "manifest.json: line 1 is not valid JSON"),
    ],
)
def test_nothing_of_the_kind(tmp_path: Path, content: bytes, message: str) -> None:
    """A file that is none of the kinds, or damaged, is one error that names the file."""
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises((UsageError, StoreError), match=message) as raised:
        look_at(str(path), None)
    assert str(raised.value).startswith(f"{path}: ")
    assert ": " in str(raised.value).removeprefix(f"{path}: ")


def test_special_files(tmp_path: Path) -> None:
    """A FIFO is not opened; a path with a colon means something else to skopeo; a missing one is an OSError."""
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(UsageError, match="neither a regular file nor a directory"):
        look_at(str(tmp_path / "fifo"), None)
    (colon := tmp_path / "a:b").mkdir()
    assert look_at(str(colon), None).kind is Kind.DIRECTORY
    (colon / "oci-layout").touch()
    (colon / "index.json").write_bytes(index(("sha256:1", None)))
    with pytest.raises(UsageError, match="skopeo takes no path with a colon: rename it"):
        look_at(str(colon), None)
    with pytest.raises(FileNotFoundError):
        look_at(str(tmp_path / "missing"), None)


@given(
    text=st.recursive(st.none() | st.text(max_size=3) | st.integers(), lambda x: st.lists(x, max_size=3), max_leaves=5)
)
def test_any_list_of_images(tmp_path_factory: pytest.TempPathFactory, text: object) -> None:
    """Whatever the JSON files contain, the result is a source or one error."""
    path = tmp_path_factory.getbasetemp() / "any"
    for name in ("index.json", "manifest.json"):
        for document in (text, [text], {"manifests": text}, [{"RepoTags": text}], {"manifests": [{"digest": text}]}):
            path.write_bytes(tar([Member(name, json.dumps(document).encode())]))
            try:
                look_at(str(path), None)
            except (StoreError, UsageError) as error:
                assert str(error).startswith(f"{path}: ")  # noqa: PT017  other errors fail the test
