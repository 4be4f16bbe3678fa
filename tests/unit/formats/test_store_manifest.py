"""The manifest of a version."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from binfmtd.errors import FormatError
from binfmtd.formats.store_manifest import FileFacts, Manifest, parse, render

TEXTS = st.text(max_size=10)
FACTS = st.builds(
    FileFacts, TEXTS, st.integers(0, 1 << 40), st.none() | TEXTS, st.dictionaries(TEXTS, TEXTS, max_size=2)
)
FILES = st.dictionaries(st.sampled_from(["qemu-arm", "qemu-sh4", "qemu-x"]), FACTS).map(
    lambda f: dict(sorted(f.items()))
)
MANIFESTS = st.builds(
    Manifest,
    TEXTS,
    st.none() | TEXTS,
    st.none() | TEXTS,
    TEXTS,
    st.none() | st.lists(TEXTS, max_size=3).map(tuple),
    FILES,
)


@given(manifest=MANIFESTS)
def test_round_trip(manifest: Manifest) -> None:
    """A manifest that was written is read as it was."""
    assert parse(render(manifest)) == manifest
    assert manifest.size == sum(file.size for file in manifest.files.values())
    assert manifest.digests.keys() == set(manifest.names)


WHOLE = {
    "source": "image",
    "digest": None,
    "platform_digest": None,
    "created": "2026-11-29T00:00:00Z",
    "architectures": None,
    "files": {"qemu-arm": {"sha256": "00", "size": 1, "version": "9.2.2"}},
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source": 1}, "arranged"),
        ({"files": []}, "arranged"),
        ({"files": {"qemu-arm": {"sha256": "00", "size": "1", "version": None}}}, "arranged"),
        ({"files": {"qemu-arm": {"sha256": "00", "version": None}}}, "the key 'size' is missing"),
        ({"files": {"qemu-arm": {"sha256": "00", "size": 1, "version": None, "settings": {"A": 1}}}}, "arranged"),
        ({"files": {"qemu-arm": {"sha256": "00", "size": 1, "version": None, "settings": []}}}, "arranged"),
        ({"files": {"qemu-/../x": WHOLE}}, "it names the file 'qemu-/../x'"),
        ({"files": {"other": WHOLE}}, "it names the file 'other'"),
        ({"files": {"qemu-\0": WHOLE}}, r"it names the file 'qemu-\\x00'"),
        ({"files": {"qemu-\ud800": WHOLE}}, r"it names the file 'qemu-\\ud800'"),
    ],
)
def test_damaged(change: dict[str, object], message: str) -> None:
    """A damaged manifest is one error; no name in it leads out of the version."""
    assert parse(json.dumps(WHOLE).encode()).names == ["arm"]
    with pytest.raises(FormatError, match=message):
        parse(json.dumps(WHOLE | change).encode())


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b"\xff", b"[" * 5000])
def test_no_manifest(data: bytes) -> None:
    with pytest.raises(FormatError):
        parse(data)
