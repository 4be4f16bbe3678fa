"""References, indexes and manifests of images."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from binfmtd.cli.store.images import Reference, layer_files, one_image, parse_json, platform_digest
from binfmtd.cli.store.skopeo import failure
from binfmtd.errors import StoreError, UsageError

DIGEST = "sha256:" + "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "reference", "registry", "for_skopeo"),
    [
        ("alpine", Reference("alpine"), "docker.io", "docker://alpine:latest"),
        ("tonistiigi/binfmt:v9", Reference("tonistiigi/binfmt", "v9"), "docker.io", "docker://tonistiigi/binfmt:v9"),
        ("docker://quay.io/a/b", Reference("quay.io/a/b"), "quay.io", "docker://quay.io/a/b:latest"),
        ("localhost:5000/a", Reference("localhost:5000/a"), "localhost:5000", "docker://localhost:5000/a:latest"),
        ("[::1]:5000/a:1", Reference("[::1]:5000/a", "1"), "[::1]:5000", "docker://[::1]:5000/a:1"),
        (f"a/b:1@{DIGEST}", Reference("a/b", "1", DIGEST), "docker.io", f"docker://a/b@{DIGEST}"),
        (
            f"localhost/b@{DIGEST}",
            Reference("localhost/b", None, DIGEST),
            "localhost",
            f"docker://localhost/b@{DIGEST}",
        ),
    ],
)
def test_references(text: str, reference: Reference, registry: str, for_skopeo: str) -> None:
    """Names are read as docker reads them.  skopeo takes no tag beside a digest, and the digest alone decides."""
    assert Reference.parse(text) == reference
    assert (reference.registry, reference.for_skopeo) == (registry, for_skopeo)
    assert str(reference) == text.removeprefix("docker://")
    assert reference.at(DIGEST).for_skopeo == f"docker://{reference.name}@{DIGEST}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not the name of an image"),
        ("a:", "is not the name of an image"),
        ("a/", "is not the name of an image"),
        ("a b", "is not the name of an image"),
        ("a\x1b", "is not the name of an image"),
        ("a@sha256:12", "a digest is sha256: and 64 hexadecimal digits"),
        (f"a@{DIGEST.upper()}", "a digest is sha256: and 64 hexadecimal digits"),
        ("a@", "a digest is sha256: and 64 hexadecimal digits"),
        ("oci:/tmp/x", "use `binfmtd emulators import` for a file"),
        ("docker-archive:./x.tar", "use `binfmtd emulators import` for a file"),
    ],
)
def test_no_reference(text: str, message: str) -> None:
    """A text that is no reference to a registry is refused in one line."""
    with pytest.raises(UsageError, match=message):
        Reference.parse(text)


def index(*platforms: str) -> dict[str, Any]:
    entries = []
    for number, platform in enumerate(platforms):
        system, machine, *variant = platform.split("/")
        described = {"os": system, "architecture": machine} | ({"variant": variant[0]} if variant else {})
        entries.append({"platform": described, "digest": f"sha256:{number}"})
    return {"schemaVersion": 2, "manifests": entries}


@pytest.mark.parametrize(
    ("platforms", "goarch", "chosen"),
    [
        (["linux/arm64", "linux/amd64", "unknown/unknown"], "amd64", "sha256:1"),
        (["windows/amd64", "linux/amd64"], "amd64", "sha256:1"),
        (["linux/amd64/v3", "linux/amd64"], "amd64", "sha256:1"),
        (["linux/arm64/v8"], "arm64", "sha256:0"),
        (["linux/arm/v5", "linux/arm/v7", "linux/arm/v6"], "arm", "sha256:1"),
        (["linux/amd64", "linux/amd64"], "amd64", "sha256:0"),
    ],
)
def test_of_an_index(platforms: list[str], goarch: str, chosen: str) -> None:
    """The manifest for Linux on this machine is taken, one without a variant first."""
    assert platform_digest(index(*platforms), goarch, "image") == chosen


def test_no_index() -> None:
    """A manifest is no index; one of schema 1, and an index without this machine, are errors."""
    assert platform_digest({"schemaVersion": 2, "layers": []}, "amd64", "image") is None
    with pytest.raises(StoreError, match=r"image: its manifest is of schema 1: push the image again"):
        platform_digest({"schemaVersion": 1}, "amd64", "image")
    with pytest.raises(StoreError, match=r"no image for linux/amd64, only for linux/arm/v7, linux/s390x: choose"):
        platform_digest(index("linux/s390x", "linux/arm/v7", "unknown/unknown"), "amd64", "image")
    with pytest.raises(StoreError, match=r"no image for linux/this machine, only for none"):
        platform_digest(index(), None, "image")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(manifests=JSON, layers=JSON)
def test_any_document(manifests: Any, layers: Any) -> None:
    """Whatever a registry serves, the result is a value or one error."""
    for document in ({"manifests": manifests}, {"layers": layers}, {"manifests": [manifests]}, {"layers": [layers]}):
        for read in (lambda each: platform_digest({"schemaVersion": 2} | each, "amd64", "image"), _layers):
            try:
                read(document)
            except StoreError as error:
                assert str(error).startswith("image: ")  # noqa: PT017  other errors fail the test


def _layers(document: dict[str, Any]) -> object:
    return layer_files(document, "image")


def test_layers() -> None:
    """The layers' files are named by their digests; another text is no file name."""
    assert layer_files({"layers": [{"digest": DIGEST}]}, "image") == [DIGEST[7:]]
    with pytest.raises(StoreError, match=r"image: its manifest names the layer 'sha256:../../etc/passwd'"):
        layer_files({"layers": [{"digest": "sha256:../../etc/passwd"}]}, "image")


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff", b"[" * 5000, b"1"])
def test_no_json(data: bytes) -> None:
    with pytest.raises(StoreError, match=r"^image: .*: get it again$"):
        parse_json(data, "image")


def test_one_of_several() -> None:
    """With several images one has to be named; a single one needs no name."""
    assert one_image([["a:1", "a:2"]], None, "x.tar") == 0
    assert one_image([["a:1"], ["b:1"]], "b:1", "x.tar") == 1
    with pytest.raises(UsageError, match=r"x.tar: it has 2 images \(a:1, b:1\): choose one with --image"):
        one_image([["a:1"], ["b:1"]], None, "x.tar")
    with pytest.raises(UsageError, match=r"x.tar: it has no image 'c': it has a:1, b:1"):
        one_image([["a:1"], ["b:1"]], "c", "x.tar")
    with pytest.raises(UsageError, match=r"x.tar: it has 0 images \(none with a name\)"):
        one_image([], None, "x.tar")


FATAL = 'time="2026-11-29T22:18:18Z" level=fatal msg='


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            FATAL + r'"Error parsing image name \"docker://r/a:1\": reading manifest 1 in r/a: manifest unknown"',
            "reading manifest 1 in r/a: manifest unknown: check the name, the tag and the digest",
        ),
        (
            'time="x" level=warning msg="x"\n' + FATAL + r'"reading \"a\": unauthorized"',
            'reading "a": unauthorized: run `skopeo login r`, or name a file with credentials with --authfile',
        ),
        ("a panic\n\n", "a panic: see skopeo(1)"),
        ("", "it ended with status 7: see skopeo(1)"),
    ],
)
def test_messages_of_skopeo(text: str, message: str) -> None:
    """The error is skopeo's last message without its decoration, and a remedy."""
    assert failure(text, 7, "image", "r") == f"image: skopeo: {message}"
