"""``binfmtd emulators import`` and ``export``: archives of Docker and OCI, layouts, and Debian's packages."""

import gzip
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from support import debian_qemu
from support.layouts import Layout
from support.registry import Registry, skopeo
from support.stores import ENVIRONMENT, StoreCli, emulators, three
from support.tars import Member


def layer(version: str) -> list[Member]:
    return [Member(f"usr/bin/{name}", data) for name, data in three(version).items()]


@pytest.fixture
def archives(layout: Layout, tmp_path: Path) -> dict[str, Path]:
    """Return archives of one image with version 9.2.2, as skopeo and docker write them, and with gzip."""
    layout.add("x", [Member("etc/motd", b"hello")], layer("9.2.2"))
    found = {"layout": layout.directory}
    for kind, name in (("docker-archive", "docker.tar:example/x:1"), ("oci-archive", "oci.tar")):
        found[kind] = tmp_path / name.partition(":")[0]
        skopeo("copy", "--quiet", f"oci:{layout.directory}", f"{kind}:{tmp_path}/{name}")
        found[f"{kind} gzip"] = found[kind].with_suffix(".tgz")
        found[f"{kind} gzip"].write_bytes(gzip.compress(found[kind].read_bytes(), 1))
    return found


@pytest.mark.parametrize("kind", ["layout", "docker-archive", "docker-archive gzip", "oci-archive", "oci-archive gzip"])
def test_archives(store: StoreCli, layout: Layout, archives: dict[str, Path], kind: str) -> None:
    """Each kind gives the files of the image; the digest is the image's, or that of an archive without one."""
    path = archives[kind]
    result = store.checked("import", str(path))
    assert result.stderr == ""
    assert store.checksums("9.2.2") == {name: hashlib.sha256(data).hexdigest() for name, data in three("9.2.2").items()}
    manifest = store.manifest("9.2.2")
    assert manifest["source"] == str(path)
    if kind.startswith("docker"):
        assert manifest["digest"] == f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
    elif kind == "layout":
        assert manifest["digest"] == layout.digests["x"]
    assert (store.hidden(), store("verify").status) == ([], 0)


def test_of_several_images(store: StoreCli, layout: Layout, tmp_path: Path) -> None:
    """--image chooses one of several images of an archive."""
    for version in ("9.2.2", "10.0.0"):
        layout.add(version, layer(version))
    archive = tmp_path / "both.tar"
    subprocess.run(["tar", "-C", str(layout.directory), "-cf", str(archive), "."], check=True)
    for path in (layout.directory, archive):
        result = store("import", str(path))
        assert (result.status, result.stdout) == (2, "")
        assert result.message == f"{path}: it has 2 images (10.0.0, 9.2.2): choose one with --image"
    store.checked("import", str(layout.directory), "--image", "9.2.2")
    store.checked("import", str(archive), "--image", "10.0.0")
    assert store.versions == ["10.0.0", "9.2.2"]


@pytest.mark.parametrize("kind", ["docker-archive", "oci-archive"])
def test_damaged_archives(store: StoreCli, archives: dict[str, Path], kind: str, tmp_path: Path) -> None:
    """An archive that is cut off, or that has a blob with other bytes, is one error, and nothing is added."""
    content = archives[kind].read_bytes()
    damaged = tmp_path / "damaged.tar"
    cut, altered = content[: len(content) // 3], content.replace(b"Copyright", b"copyright")
    assert altered != content or kind == "oci-archive"  # whose layer is compressed
    for data in (cut, altered):
        if data == content:
            continue
        damaged.write_bytes(data)
        result = store("import", str(damaged))
        assert result.status in (1, 2)
        assert result.message.startswith(f"{damaged}: ")
        assert store.versions == []


def test_a_blob_with_other_bytes(store: StoreCli, layout: Layout) -> None:
    """A blob of a layout that does not have its digest is found out."""
    layout.add("x", layer("9.2.2"), compression="")
    (described,) = layout.manifest("x")["layers"]
    blob = layout.blob(described["digest"])
    blob.write_bytes(blob.read_bytes().replace(b"Copyright", b"copyright"))
    result = store("import", str(layout.directory))
    assert result.status == 1
    assert result.message.endswith("do not use it: the content is damaged, or another one than the digest means")
    assert (store.versions, store.hidden()) == ([], [])


@pytest.mark.parametrize("several", [False, True])
def test_an_altered_manifest(store: StoreCli, layout: Layout, tmp_path: Path, several: bool) -> None:
    """A manifest that does not have the digest in index.json is found out, of one platform or of several."""
    digest = layout.add_index("x", {"linux/amd64": layer("9.2.2")}) if several else layout.add("x", layer("9.2.2"))
    archive = tmp_path / "altered.tar"
    manifest = layout.blob(digest)
    for content in (manifest.read_bytes() + b" ", manifest.read_bytes()):
        manifest.write_bytes(content)
        subprocess.run(["tar", "-C", str(layout.directory), "-cf", str(archive), "."], check=True)
        for number, path in enumerate((layout.directory, archive)):
            result = store("import", str(path), "--name", f"x{number}")
            if content.endswith(b" "):
                assert result.status == 1
                assert result.message == f"{path}: its manifest does not have its digest {digest}: do not use it"
                assert (store.versions, store.hidden()) == ([], [])
            else:
                assert result.status == 0, result.stderr


def test_round_trip(store: StoreCli, registry: Registry, tmp_path: Path) -> None:
    """A version that was exported is imported with equal files, also through a registry; its bytes are always equal."""
    store.checked("import", emulators(tmp_path / "source", three("9.2.2")))
    first, second = tmp_path / "first.tar", tmp_path / "second.tar"
    digest = store.checked("export", "9.2.2", str(first), "--json").json["digest"]
    other = StoreCli(tmp_path / "empty")  # another host
    other.checked("import", str(first))
    assert other.checksums("9.2.2") == store.checksums("9.2.2")
    assert other.manifest("9.2.2")["digest"] == digest
    second.write_bytes(b"older")
    other.checked("export", "9.2.2", str(second))
    assert second.read_bytes() == first.read_bytes()
    assert sorted(path.name for path in tmp_path.glob("*.tar*")) == ["first.tar", "second.tar"]
    image = f"{registry.address}/exported:1"
    options = ("--quiet", "--preserve-digests", "--dest-tls-verify=false")
    skopeo("copy", *options, f"oci-archive:{first}", f"docker://{image}")
    other.checked("pull", f"{image}@{digest}", "--insecure", "--name", "pulled")
    assert other.checksums("pulled") == store.checksums("9.2.2")
    tar = subprocess.run(["tar", "-tf", str(first)], capture_output=True, text=True, check=True).stdout
    # Without its directories skopeo would call chown(2) for them, which an ordinary user may not.
    assert tar.splitlines()[:2] == ["blobs/", "blobs/sha256/"]


def test_a_copied_version(store: StoreCli, tmp_path: Path) -> None:
    """The directory of a version, copied from another host, is imported without skopeo; so is a store as a whole."""
    store.checked("import", emulators(tmp_path / "source", three("9.2.2")))
    shutil.copytree(store.path / "9.2.2", tmp_path / "copied")
    (tmp_path / "empty").mkdir()
    other = StoreCli(tmp_path / "other")
    result = other("import", str(tmp_path / "copied"), env=ENVIRONMENT | {"PATH": str(tmp_path / "empty")})
    assert (result.status, result.stderr) == (0, "")
    assert other.checksums("9.2.2") == store.checksums("9.2.2")
    whole = StoreCli(tmp_path / "whole")
    shutil.copytree(store.path, whole.path)
    assert whole("verify").stdout == "9.2.2: as it was added\n"


def test_what_cannot_be_exported(store: StoreCli, tmp_path: Path) -> None:
    """A version with a damaged file, and a target that cannot be written, are one error; nothing is left beside it."""
    store.checked("import", emulators(tmp_path / "source", three("9.2.2")))
    (place := tmp_path / "empty").mkdir()
    assert store("export", "9.2.2", "/dev/null").message.startswith("/dev/null: it is not a regular file: name a file")
    assert "/nowhere" in store("export", "9.2.2", "/nowhere/x.tar").message
    (store.path / "9.2.2" / "qemu-arm").write_bytes(b"other")
    result = store("export", "9.2.2", str(place / "x.tar"))
    assert (result.status, result.stdout) == (1, "")
    assert result.message.endswith(
        f"qemu-arm is not as it was added: run `binfmtd emulators verify 9.2.2 --store {store.path}`"
    )
    assert os.listdir(place) == []


@pytest.mark.parametrize("suite", debian_qemu.PACKAGES)
def test_debian_packages(store: StoreCli, suite: str) -> None:
    """The static emulators of Debian's packages are imported, and report the suite's version."""
    package = debian_qemu.package(suite)
    result = store.checked("import", str(package), "--json")
    assert result.stderr == ""
    assert result.json["name"].startswith(debian_qemu.version(suite))
    assert len(result.json["architectures"]) > 30
    assert set(result.json["architectures"].values()) == {result.json["name"]}
    assert result.json["digest"] == f"sha256:{hashlib.sha256(package.read_bytes()).hexdigest()}"
    assert store("verify").status == 0


def test_all_of_debian_through_a_registry(store: StoreCli, registry: Registry, layout: Layout) -> None:
    """An image of a whole Debian package is pulled; its files are the package's."""
    files = sorted(debian_qemu.unpacked("bookworm").glob("qemu-*-static"))
    wanted = [file for file in files if file.name in {f"qemu-{name}-static" for name in ("arm", "aarch64", "riscv64")}]
    layout.add("x", [Member(f"usr/bin/{file.name}", file.read_bytes()) for file in wanted])
    pulled = store.checked("pull", registry.push(layout, "x", "debian:12"), "--insecure", "--json").json
    assert pulled["name"].startswith("7.2.")
    assert store.checksums(pulled["name"]) == {
        file.name.removesuffix("-static"): hashlib.sha256(file.read_bytes()).hexdigest() for file in wanted
    }


def test_dynamic_emulators(store: StoreCli, tmp_path: Path) -> None:
    """A package of dynamic programs is refused, and the error says why."""
    package(tmp_path, {"usr/bin/qemu-arm": Path("/usr/bin/env").read_bytes()})
    result = store("import", str(tmp_path / "x.deb"))
    assert result.status == 1
    assert "usr/bin/qemu-arm: dynamic (it needs /lib64/ld-linux-x86-64.so.2)" in result.message
    assert store.hidden() == []


def package(directory: Path, files: dict[str, bytes]) -> None:
    tree = directory / "tree"
    (tree / "DEBIAN").mkdir(parents=True)
    text = "Package: x\nVersion: 1\nArchitecture: all\nMaintainer: x <x@example.org>\nDescription: x\n"
    (tree / "DEBIAN" / "control").write_text(text)
    for name, content in files.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes(content)
    subprocess.run(["dpkg-deb", "-b", str(tree), str(directory / "x.deb")], check=True, capture_output=True)


def test_a_damaged_package(store: StoreCli, tmp_path: Path) -> None:
    """A .deb that is cut off is one error with dpkg-deb's message; without dpkg-deb the error names its package."""
    package(tmp_path, {f"usr/bin/{name}": data + os.urandom(1 << 20) for name, data in three("9.2.2").items()})
    whole = (tmp_path / "x.deb").read_bytes()
    cut = tmp_path / "cut.deb"
    for size in (8, 100, len(whole) // 2, len(whole) - 10):
        cut.write_bytes(whole[:size])
        result = store("import", str(cut))
        assert result.status in (1, 2), size
        assert result.message.startswith(f"{cut}: "), size
        assert store.versions == []
    (tmp_path / "empty").mkdir()
    result = store("import", str(tmp_path / "x.deb"), env=ENVIRONMENT | {"PATH": str(tmp_path / "empty")})
    assert result.message == "dpkg-deb is missing: run `apt-get install dpkg`"
    store.checked("import", str(tmp_path / "x.deb"))
    assert store.hidden() == []
