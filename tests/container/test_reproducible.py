"""Two builds make one image, also where one of them passes a proxy that has certificates of its own.

Each build takes nothing from podman's cache.  The base takes Debian's packages by HTTPS, so apt and pip both need the
certificates, which only the secret ``ca`` has.
"""

import http.server
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from support import images
from support.cli import CHECKOUT, run
from support.containers import Machine
from support.site_proxy import SiteProxy

pytestmark = pytest.mark.container

SOURCE = "https://example.org/binfmtd"
SNAPSHOT = "20261101T000000Z"
PINNED = "--build-arg=PYTHON_PACKAGES=structlog==25.1.0"
OCI = "org.opencontainers.image."
PLAIN, PROXIED = "anew", "anew-by-proxy"
BUILDERS = {"hatchling", "setuptools"}
UNCHECKED = 1  # a .pyc's flags (PEP 552): made from a hash that is not compared


@pytest.fixture(scope="module")
def base(_podman: None) -> str:
    """Return a base whose packages come by HTTPS, without any certificates."""
    sources = "s#http://#https://#; s#https://security.debian.org/#https://deb.debian.org/#"
    return images.derive("base-https", images.base_image(), f"RUN sed -i '{sources}' /etc/apt/sources.list")


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SiteProxy]:
    """Yield a proxy that decrypts all connections."""
    directory = tmp_path_factory.mktemp("proxy") / "proxy"
    with closing(SiteProxy(directory, images.pip_settings().get("cert"))) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def plain(base: str) -> Iterator[str]:
    """Yield the name of slim, built anew."""
    name = images.rebuild(PLAIN, base, PINNED, variables={"SOURCE": SOURCE})
    yield name
    images.remove(name)


@pytest.fixture(scope="module")
def proxied(base: str, proxy: SiteProxy, plain: str) -> Iterator[str]:  # noqa: ARG001  one build at a time
    """Yield the name of slim, built anew through the proxy, with the certificate of its authority."""
    variables = {"SOURCE": SOURCE, "https_proxy": proxy.address}
    name = images.rebuild(PROXIED, base, PINNED, variables=variables, authority=proxy.authority)
    yield name
    images.remove(name)


def own_layers(base: str, name: str) -> list[dict[str, images.File]]:
    return images.layers(name, first=len(images.inspect(base)["RootFS"]["Layers"]))


def test_two_builds_have_one_digest(base: str, plain: str, proxied: str) -> None:
    """The digests of both builds' manifests and configurations are equal."""
    one, other = images.inspect(plain), images.inspect(proxied)
    assert images.differences(own_layers(base, plain), own_layers(base, proxied)) == []
    assert images.configuration(plain) == images.configuration(proxied)
    assert (one["Digest"], one["Id"]) == (other["Digest"], other["Id"])


def test_the_proxy_is_used(proxied: str, proxy: SiteProxy) -> None:  # noqa: ARG001  the build is what is tested
    """apt and pip both went through the proxy."""
    assert "deb.debian.org" in proxy.hosts
    assert len(proxy.hosts) > 1


def test_nothing_of_the_site_is_in_the_image(base: str, proxied: str, proxy: SiteProxy) -> None:
    """Neither the certificate nor the proxy's address is in a layer or in the configuration."""
    certificate = proxy.authority.read_text().splitlines()[1].encode()
    address = proxy.address.encode()
    for layer in own_layers(base, proxied):
        assert [path for path, file in layer.items() if certificate in file.data or address in file.data] == []
        assert [path for path, file in layer.items() if path.startswith("run/") and file.data] == []
    assert proxy.address not in images.configuration(proxied)


def test_without_the_certificate_the_build_fails(base: str, proxy: SiteProxy) -> None:
    """Through the proxy, a build with the certificates of this machine alone ends with an error about certificates."""
    with pytest.raises(images.BuildError, match=r"(?i)certificate"):
        images.rebuild("anew-without", base, variables={"https_proxy": proxy.address})


def test_labels(plain: str) -> None:
    """Each label has a value, except those that no argument names; the commit is the checkout's."""
    labels = images.inspect(plain)["Labels"]
    known = {name.removeprefix(OCI): value for name, value in labels.items() if name.startswith(OCI)}
    commit = run(["git", "rev-parse", "HEAD"], cwd=CHECKOUT).stdout.strip()
    assert known["revision"] == commit
    assert known["source"] == known["url"] == SOURCE
    assert known["documentation"] == f"{SOURCE}/blob/{commit}/docs/containers.md"
    assert known["created"].endswith("Z")
    assert images.inspect(plain)["Created"].startswith(known["created"].removesuffix("Z"))
    assert {name for name, value in known.items() if not value} == {"vendor", "base.digest"}


def test_the_bytecode_depends_on_no_time(base: str, plain: str) -> None:
    """All bytecode is of the kind that Python does not compare with the time of its source."""
    files = {path: file for layer in own_layers(base, plain) for path, file in layer.items()}
    flags = {path: int.from_bytes(file.data[4:8], "little") for path, file in files.items() if path.endswith(".pyc")}
    assert len(flags) > 300
    assert {path for path, flag in flags.items() if flag != UNCHECKED} == set()


def test_commands_compile_nothing(plain: str, machine: Machine) -> None:
    """A rebuilt image has all bytecode that commands need, though the times of the sources are others."""
    script = "for command in '--version' 'arch --json' 'plan' 'doctor' 'status --json'; do binfmtd $command; done"
    started = machine.start("--entrypoint=sh", plain, "-c", f"{script}; :")
    assert started.wait_exit() == 0
    changed = started.podman("diff").stdout.split()
    assert [path for path in changed if "__pycache__" in path] == []


def test_the_versions(plain: str) -> None:
    """packages.txt has the version of each Python package, and of what builds some of them; one was chosen."""
    with images.exported(plain) as archive:
        listed = run(["tar", "-xOf", str(archive), "opt/binfmtd/packages.txt"]).stdout.split()
        members = run(["tar", "-tf", str(archive)]).stdout
    versions = dict(line.split("==") for line in listed)
    assert {"pydantic", "structlog", "pyinotify", "prometheus_client", *BUILDERS} <= versions.keys()
    assert PINNED.endswith(f"structlog=={versions['structlog']}")
    for name, version in versions.items():
        assert name in BUILDERS or f"/{name.replace('-', '_')}-{version}.dist-info/METADATA" in members


class Mirror(http.server.BaseHTTPRequestHandler):
    """Debian's archive under the addresses of a snapshot: it sends clients on to the present archive."""

    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        archive, _, path = self.path.removeprefix("/archive/").partition(f"/{SNAPSHOT}/")
        self.send_response(302)
        self.send_header("Location", f"http://deb.debian.org/{archive}/{path}")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.usefixtures("_podman")
def test_a_snapshot() -> None:
    """With SNAPSHOT apt asks only for the snapshot of that time, and /etc/apt and /tmp stay as they were."""
    asked: list[str] = []
    handler = type("Handler", (Mirror,), {"asked": asked, "protocol_version": "HTTP/1.1"})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        settings = f"SNAPSHOT={SNAPSHOT} SNAPSHOT_MIRROR=http://127.0.0.1:{server.server_port}/archive"
        script = f"cp -r /etc/apt /root/apt && {settings} /build/fetch apt-get update && diff -r /etc/apt /root/apt"
        options = [f"--volume={CHECKOUT}/packaging/image:/build:ro", "--network=host", "--no-cache"]
        lines = [f"RUN {script}", 'RUN test -z "$(ls /tmp)"']
        images.remove(images.derive("snapshot", images.base_image(), *lines, options=options))
        server.shutdown()
    assert {path.split("/")[2] for path in asked} == {"debian", "debian-security"}
    assert {path.split("/")[3] for path in asked} == {SNAPSHOT}


def test_a_snapshot_of_another_archive(machine: Machine, tmp_path: Path) -> None:
    """A base whose sources have no address of Debian's archive cannot have a snapshot; a message says so."""
    (tmp_path / "sources.list").write_text("deb http://mirror.example.org/other trixie main\n")
    options = [f"--env=SNAPSHOT={SNAPSHOT}", "--env=SNAPSHOT_MIRROR=http://127.0.0.1:1", "--entrypoint=/build/fetch"]
    options += [f"--volume={CHECKOUT}/packaging/image:/build:ro"]
    options += [f"--volume={tmp_path}/sources.list:/etc/apt/sources.list:ro"]
    done = machine.container(*options, images.base_image(), "true")
    assert done.status == 1
    assert SNAPSHOT in done.stderr
