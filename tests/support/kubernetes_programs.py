"""The programs of a Kubernetes node, in a cache outside of the checkout; nothing is installed.

Kubernetes 1.20.2 is built from Debian 12's source package, once, which takes some minutes.  It is the newest version
that Debian has.  etcd and the network plugins are unpacked from this Debian's packages.  containerd and runc are taken
from the machine.
"""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

VERSION = "1.20.2"
SUITE = "bookworm"  # the newest that has a source package of Kubernetes
PROGRAMS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet")
PACKAGES = ("etcd-server", "etcd-client", "containernetworking-plugins", "kubectl")
PLUGINS = "usr/lib/cni"
PATH = ("usr/bin", "usr/sbin")
_VERSION_PACKAGES = (
    "k8s.io/component-base/version",
    "k8s.io/kubernetes/vendor/k8s.io/component-base/version",
    "k8s.io/kubernetes/vendor/k8s.io/client-go/pkg/version",
)
_OPENAPI = "pkg/generated/openapi"
_TAG = r"^//\s*\+k8s:openapi-gen=true"
_MIRROR = "http://deb.debian.org/debian"


def programs() -> Path:
    """Return the directory of the programs; build them if they are missing.  Raises CalledProcessError."""
    place = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "binfmtd" / f"kubernetes-{VERSION}"
    done = place / "programs"
    if not done.is_dir():
        new = place / "programs.new"
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        _unpack_packages(new)
        _build(_source(place), new)
        shutil.rmtree(place / "go", ignore_errors=True)
        new.rename(done)  # as a whole or not at all
    return done


def _unpack_packages(into: Path) -> None:
    for package in PACKAGES:
        _run(["apt-get", "download", "-qq", package], into)
    for file in into.glob("*.deb"):
        _run(["dpkg-deb", "-x", str(file), str(into)], into)
        file.unlink()


def _source(place: Path) -> Path:
    """Return the source's directory in a GOPATH; it is downloaded with package lists of our own."""
    source = place / "go" / "src" / "k8s.io" / "kubernetes"
    shutil.rmtree(place / "go", ignore_errors=True)
    source.parent.mkdir(parents=True)
    lists = place / "lists"
    (lists / "partial").mkdir(parents=True, exist_ok=True)
    key = next(Path("/usr/share/keyrings").glob("debian-archive-keyring.*"))
    (place / "source.list").write_text(f"deb-src [signed-by={key}] {mirror()} {SUITE} main\n")
    options = [f"Dir::Etc::SourceList={place / 'source.list'}", "Dir::Etc::SourceParts=-", f"Dir::State::Lists={lists}"]
    apt = ["apt-get", "-qq", *(f"-o{option}" for option in options)]
    _run([*apt, "update"], place)
    _run([*apt, "source", "--download-only", "kubernetes"], place)
    description = next(place.glob("kubernetes_*.dsc"))
    _run(["dpkg-source", "--no-check", "-x", str(description), str(source)], place)
    return source


def mirror() -> str:
    """Return the first mirror of Debian that this machine's apt uses."""
    for file in sorted(Path("/etc/apt/sources.list.d").glob("debian.sources")):
        for line in file.read_text().splitlines():
            if line.startswith("URIs:"):
                return line.split()[1]
    return _MIRROR


def _build(source: Path, into: Path) -> None:
    gopath = source.parents[2]
    settings = {"GOPATH": gopath, "GO111MODULE": "off", "CGO_ENABLED": "0", "GOFLAGS": "", "GOTOOLCHAIN": "local"}
    environment = os.environ | {key: str(value) for key, value in settings.items()}
    if not (source / _OPENAPI / "zz_generated.openapi.go").exists():
        _generate_openapi(source, gopath, environment)
    numbers = dict(zip(("gitMajor", "gitMinor"), VERSION.split("."), strict=False))
    facts = numbers | {"gitVersion": f"v{VERSION}", "gitTreeState": "clean", "buildDate": "2021-01-13T13:20:00Z"}
    set_at_link = [f"-X {package}.{key}={value}" for package in _VERSION_PACKAGES for key, value in facts.items()]
    flags = " ".join(["-s", "-w", "-checklinkname=0", *set_at_link])
    binaries = into / "usr" / "bin"
    command = ["go", "build", "-tags", "providerless selinux", "-ldflags", flags, "-o", f"{binaries}/"]
    _run([*command, *(f"./cmd/{program}" for program in PROGRAMS)], source, environment)


def _generate_openapi(source: Path, gopath: Path, environment: Mapping[str, str]) -> None:
    """Generate the API server's description of its API, which the source package does not contain."""
    generator = gopath / "openapi-gen"
    _run(["go", "build", "-o", str(generator), "./vendor/k8s.io/kube-openapi/cmd/openapi-gen"], source, environment)
    grep = ["grep", "-rlE", "--include=*.go", _TAG]
    own = _output([*grep, "pkg", "cmd", "plugin"], source)
    staged = _output([*grep, "k8s.io"], source / "staging" / "src")
    examples = ("sample-", "code-generator", "apiextensions-apiserver/examples")
    packages = {f"k8s.io/kubernetes/{Path(file).parent}" for file in own}
    packages |= {
        f"k8s.io/kubernetes/vendor/{Path(file).parent}"
        for file in staged
        if not any(example in file for example in examples)
    }
    command = [str(generator), "-i", ",".join(sorted(packages)), "-p", f"k8s.io/kubernetes/{_OPENAPI}"]
    command += ["-O", "zz_generated.openapi", "-h", "hack/boilerplate/boilerplate.generatego.txt"]
    _run([*command, "-r", str(gopath / "violations")], source, environment)


def _output(command: Sequence[str], directory: Path) -> list[str]:
    done = subprocess.run(command, cwd=directory, check=True, capture_output=True, text=True)
    return done.stdout.split()


def _run(command: Sequence[str], directory: Path, environment: Mapping[str, str] | None = None) -> None:
    subprocess.run(command, cwd=directory, check=True, env=environment)
