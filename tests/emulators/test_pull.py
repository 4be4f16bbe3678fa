"""``binfmtd emulators pull`` from Debian's docker-registry."""

import hashlib
import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.cli import Result
from support.layouts import Layout
from support.registry import PASSWORD, USER, Registry, Valve, skopeo
from support.stores import ENVIRONMENT, StoreCli, three
from support.tars import Member, hard_link, symlink
from support.waiting import wait_until

StartRegistry = Callable[..., Registry]

LARGE = 8 << 20  # bytes of a file that does not fit into the buffers of sockets


def layer(version: str) -> list[Member]:
    return [Member(f"usr/bin/{name}", data) for name, data in three(version).items()]


def pull(store: StoreCli, image: str, *arguments: str) -> Result:
    return store("pull", image, "--insecure", *arguments)


def pulled(store: StoreCli, image: str, *arguments: str) -> Result:
    result = pull(store, image, *arguments)
    assert result.status == 0, result.stderr
    return result


def expected(version: str) -> dict[str, str]:
    return {name: hashlib.sha256(data).hexdigest() for name, data in three(version).items()}


def nothing_added(store: StoreCli, result: Result, message: str) -> None:
    """Check that a command failed with one message that contains this text, and left nothing in the store."""
    assert (result.status, result.stdout) == (1, "")
    assert message in result.message
    assert store.versions == []
    assert store.hidden() == []


def test_by_tag(store: StoreCli, registry: Registry, layout: Layout) -> None:
    """The files are those of the image; the digest that was found is printed and kept."""
    digest = layout.add("x", layer("9.2.2"))
    image = registry.push(layout, "x", "tag:1")
    result = pulled(store, image)
    assert result.stderr == ""
    assert result.stdout.splitlines()[1:] == [f"digest: {digest}"]
    assert store.checksums("9.2.2") == expected("9.2.2")
    manifest = store.manifest("9.2.2")
    assert (manifest["source"], manifest["digest"], manifest["platform_digest"]) == (image, digest, None)
    assert store("verify").stdout == "9.2.2: as it was added\n"
    assert pulled(store, image, "--json").json["added"] is False


def test_by_digest(store: StoreCli, start_registry: StartRegistry, layout: Layout) -> None:
    """With a digest, also beside a tag, exactly that image is pulled; the second time without the registry."""
    digest = layout.add("old", layer("9.2.2"))
    layout.add("new", layer("10.0.0"))
    registry = start_registry()
    old = registry.push(layout, "old", "digest:latest")
    registry.push(layout, "new", "digest:latest")
    pulled(store, f"{old}@{digest}")
    assert store.versions == ["9.2.2"]
    registry.close()
    again = pulled(store, f"{registry.address}/digest@{digest}", "--json").json
    assert (again["name"], again["added"], again["digest"]) == ("9.2.2", False, digest)
    assert pull(store, f"{old}@{digest}", "--name", "other").status == 1
    (store.path / "9.2.2" / "qemu-arm").unlink()
    assert "but damaged (qemu-arm is missing): run " in pull(store, f"{old}@{digest}").message
    assert pull(store, f"{old}@{digest}", "--arch", "arm").status == 1  # it has more than these


def test_of_an_index(store: StoreCli, registry: Registry, layout: Layout) -> None:
    """Of an image for several platforms that of this host is taken; both digests are kept, and each can be pulled."""
    images = {"linux/arm64": layer("1.0"), "linux/amd64": layer("9.2.2"), "windows/amd64": layer("2.0")}
    digest = layout.add_index("x", images)
    image = registry.push(layout, "x", "index:1")
    pulled(store, image)
    assert store.checksums("9.2.2") == expected("9.2.2")
    manifest = store.manifest("9.2.2")
    assert manifest["digest"] == digest
    (ours,) = (each for each in layout.manifest("x")["manifests"] if each["platform"]["os"] == "linux"
               and each["platform"]["architecture"] == "amd64")  # fmt: skip
    assert manifest["platform_digest"] == ours["digest"]
    for each in (digest, ours["digest"]):
        assert pulled(store, f"{image}@{each}", "--json").json["added"] is False
    store.checked("remove", "9.2.2")
    pulled(store, f"{image}@{ours['digest']}")
    assert store.manifest("9.2.2")["platform_digest"] is None
    layout.add_index("foreign", {"linux/arm64": layer("1.0"), "linux/arm/v7": layer("1.0")})
    result = pull(store, registry.push(layout, "foreign", "index:2"), "--name", "y")
    assert "it has no image for linux/amd64, only for linux/arm/v7, linux/arm64: choose another" in result.message


@pytest.mark.parametrize("compression", ["", "+gzip", "+zstd"])
def test_layers(store: StoreCli, registry: Registry, layout: Layout, compression: str) -> None:
    """Layers are decompressed and put on top of each other, with whiteouts; what leads out of the image is left out."""
    below = [*layer("9.2.2"), Member("usr/bin/bash", b"bash"), Member("opt/qemu-mips", b"hidden below")]
    above = [
        Member("usr/bin/.wh.qemu-arm"),
        Member("opt/.wh..wh..opq"),
        Member("../../qemu-s390x", three("9.2.2")["qemu-arm"]),
        Member("dev/qemu-s390x", kind=b"3"),
        symlink("usr/bin/qemu-ppc", "/etc/passwd"),
        symlink("usr/bin/qemu-aarch64-static", "qemu-aarch64"),
        hard_link("usr/bin/qemu-riscv32", "usr/bin/bash"),
    ]
    layout.add("x", below, above, compression=compression)
    result = pulled(store, registry.push(layout, "x", f"layers:z{compression.strip('+')}"))
    assert result.message == "left out usr/bin/qemu-ppc: a link that leads to no emulator of this source"
    assert store.checksums("9.2.2") == {name: sha for name, sha in expected("9.2.2").items() if name != "qemu-arm"}
    files = [entry.stat(follow_symlinks=False).st_mode for entry in os.scandir(store.path / "9.2.2")]
    assert all(map(stat.S_ISREG, files))


def test_without_emulators(store: StoreCli, registry: Registry, layout: Layout) -> None:
    """An image without emulators for this host is an error that says what was found."""
    layout.add("none", [Member("usr/bin/bash", b"bash")])
    layout.add("scripts", [Member("usr/bin/qemu-arm", b"#!/bin/sh")])
    nothing_added(store, pull(store, registry.push(layout, "none", "none:1")), "none of 1 files is one: choose another")
    result = pull(store, registry.push(layout, "scripts", "none:2"))
    nothing_added(store, result, "among its 1 files are only these emulators: usr/bin/qemu-arm: not an ELF program")


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("{address}/known@sha256:" + "0" * 64, "manifest unknown: check the name, the tag and the digest"),
        ("{address}/known:missing", "manifest unknown: check the name, the tag and the digest"),
        ("{address}/missing", "manifest unknown: check the name, the tag and the digest"),
        ("127.0.0.1:1/known", "connection refused: check the network and the registry, and run this again"),
        ("registry.invalid/known", "check the network and the registry, and run this again"),
        ("{address}/Known", "repository name must be lowercase: see skopeo(1)"),
    ],
)
def test_not_there(store: StoreCli, registry: Registry, layout: Layout, image: str, message: str) -> None:
    """A wrong digest, a wrong name and a registry that does not answer are one error with a remedy each."""
    layout.add("x", layer("9.2.2"))
    registry.push(layout, "x", "known:latest")
    image = image.format(address=registry.address)
    result = pull(store, image)
    nothing_added(store, result, message)
    assert result.message.startswith(f"{image}: skopeo: ")


def test_without_tls(store: StoreCli, registry: Registry, layout: Layout) -> None:
    """A registry without TLS takes --insecure, which the error names."""
    layout.add("x", layer("9.2.2"))
    image = registry.push(layout, "x", "tls:1")
    nothing_added(store, store("pull", image), "if this registry is to be used without TLS, add --insecure")


def test_an_unknown_certificate(store: StoreCli, start_registry: StartRegistry, layout: Layout) -> None:
    """A certificate that this host does not know is refused; one that it trusts needs no option."""
    registry = start_registry(tls=True)
    layout.add("x", layer("9.2.2"))
    image = registry.push(layout, "x", "tls:1")
    remedy = f"put the CA's certificate into /etc/containers/certs.d/{registry.address}, or add --insecure"
    nothing_added(store, store("pull", image), remedy)
    result = store("pull", image, env=ENVIRONMENT | {"SSL_CERT_FILE": str(registry.certificate)})
    assert result.status == 0, result.stderr
    assert store.checksums("9.2.2") == expected("9.2.2")


def test_an_altered_manifest(store: StoreCli, start_registry: StartRegistry, layout: Layout) -> None:
    """A registry that serves another manifest than the digest means is found out, also if skopeo passes it on."""
    digest = layout.add("x", layer("9.2.2"))
    registry = start_registry()
    image = registry.push(layout, "x", "altered:1")
    altered = json.loads(registry.blob(digest).read_bytes()) | {"annotations": {"altered": "yes"}}
    registry.blob(digest).write_text(json.dumps(altered))
    result = pull(store, f"{image}@{digest}")
    nothing_added(
        store, result, f"{image}@{digest}: the registry serves another manifest under this digest: do not use"
    )


def test_a_damaged_layer(store: StoreCli, start_registry: StartRegistry, layout: Layout) -> None:
    """A layer that is cut off, or that has other bytes, on the registry's disk, is found out by its digest."""
    layout.add("x", [*layer("9.2.2"), Member("large", os.urandom(LARGE))], compression="")
    registry = start_registry()
    image = registry.push(layout, "x", "damaged:1")
    (described,) = layout.manifest("x")["layers"]
    blob = registry.blob(described["digest"])
    content = blob.read_bytes()
    for damaged in (content[: len(content) // 2], content[:-1] + b"x"):
        blob.write_bytes(damaged)
        result = pull(store, image)
        nothing_added(store, result, "do not use it: the content is damaged, or another one than the digest means")
    blob.unlink()
    nothing_added(store, pull(store, image), "the registry has lost a part of the image: push it again")
    blob.write_bytes(content)
    pulled(store, image)


def in_the_middle(store: StoreCli, registry: Registry, layout: Layout, valve: Valve) -> subprocess.Popen[str]:
    """Start a pull, and return when the registry has sent half of a layer."""
    layout.add("x", [*layer("9.2.2"), Member("large", os.urandom(LARGE))], compression="")
    image = registry.push(layout, "x", "middle:1").replace(registry.address, valve.address)
    command = [*store.command("pull", image, "--insecure")]
    process = subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    assert valve.reached.wait(60)
    return process


def test_the_registry_dies(store: StoreCli, start_registry: StartRegistry, layout: Layout) -> None:
    """If the registry dies in the middle of a layer, there is one error, and nothing is left in the store."""
    registry = start_registry()
    with Valve(registry.address, LARGE // 2) as valve:
        process = in_the_middle(store, registry, layout, valve)
        assert [name[:5] for name in store.hidden()] == [".new-"]
        registry.close()
        valve.close()
        _, stderr = process.communicate(timeout=120)
    nothing_added(
        store, Result(process.returncode, "", stderr), "check the network and the registry, and run this again"
    )


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_pull_is_ended(store: StoreCli, start_registry: StartRegistry, layout: Layout, number: signal.Signals) -> None:
    """A pull that is ended leaves no skopeo behind, and no version; what SIGKILL leaves, the next command removes."""
    registry = start_registry()
    with Valve(registry.address, LARGE // 2) as valve:
        process = in_the_middle(store, registry, layout, valve)
        (child,) = _children(process.pid)
        process.send_signal(number)
        _, stderr = process.communicate(timeout=60)
        wait_until(lambda: not Path(f"/proc/{child}/exe").exists(), what="the end of skopeo")
    assert stderr == ""
    assert store.versions == []
    if number != signal.SIGKILL:
        assert store.hidden() == []
    pulled(store, f"{registry.address}/middle:1")
    assert (store.versions, store.hidden()) == (["9.2.2"], [])
    assert store("verify").status == 0


def _children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def test_credentials(store: StoreCli, start_registry: StartRegistry, layout: Layout, tmp_path: Path) -> None:
    """A registry with passwords takes --authfile, or what `skopeo login` wrote; without, the error names both."""
    layout.add("x", layer("9.2.2"))
    registry = start_registry(credentials=True)
    image = registry.push(layout, "x", "private:1")
    remedy = f"run `skopeo login {registry.address}`, or name a file with credentials with --authfile"
    authfile = tmp_path / "auth.json"
    for password in ("wrong", None, PASSWORD):
        if password is not None:
            skopeo_login(registry, authfile, password)
        arguments = [] if password is None else ["--authfile", str(authfile)]
        result = pull(store, image, *arguments)
        if password == PASSWORD:
            assert result.status == 0, result.stderr
        else:
            nothing_added(store, result, remedy)
    store.checked("remove", "9.2.2")
    result = store("pull", image, "--insecure", env=ENVIRONMENT | {"REGISTRY_AUTH_FILE": str(authfile)})
    assert result.status == 0, result.stderr


def skopeo_login(registry: Registry, authfile: Path, password: str) -> None:
    """Write credentials as `skopeo login` does, which refuses wrong ones."""
    if password == PASSWORD:
        skopeo(
            "login", "--tls-verify=false", f"--authfile={authfile}", f"--username={USER}", f"--password={PASSWORD}",
            registry.address,
        )  # fmt: skip
        return
    auth = subprocess.run(["base64"], input=f"{USER}:{password}".encode(), capture_output=True, check=True).stdout
    authfile.write_text(json.dumps({"auths": {registry.address: {"auth": auth.decode().strip()}}}))


def test_a_policy(store: StoreCli, registry: Registry, layout: Layout, tmp_path: Path) -> None:
    """A policy that rejects the image is applied."""
    layout.add("x", layer("9.2.2"))
    (tmp_path / "policy.json").write_text(json.dumps({"default": [{"type": "reject"}]}))
    result = pull(store, registry.push(layout, "x", "policy:1"), "--policy", str(tmp_path / "policy.json"))
    nothing_added(store, result, "see containers-policy.json(5)")


def test_without_skopeo(store: StoreCli, tmp_path: Path) -> None:
    """Where skopeo is missing, the error names the package."""
    (tmp_path / "empty").mkdir()
    result = store("pull", "x", env=ENVIRONMENT | {"PATH": str(tmp_path / "empty")})
    nothing_added(store, result, "skopeo is missing: run `apt-get install skopeo`")


SMALLER = "import binfmtd.cli.store.skopeo as s; s.IMAGE_BYTES = 1 << 20; from binfmtd.cli.main import entry; entry()"


def test_a_bomb(store: StoreCli, registry: Registry, layout: Layout) -> None:
    """A layer that is small in the registry and huge on the disk is cut off at the limit, here a smaller one."""
    layout.add("x", [*layer("9.2.2"), Member("zeros", bytes(1 << 30))])
    image = registry.push(layout, "x", "bomb:1")
    (described,) = layout.manifest("x")["layers"]
    assert described["size"] < 16 << 20
    command = [sys.executable, "-c", SMALLER, *store.command("pull", image, "--insecure")[3:]]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=120)
    nothing_added(store, Result(done.returncode, done.stdout, done.stderr), "GiB, which is the limit")
