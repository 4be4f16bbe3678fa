"""The images that the tests run: built by podman from the Containerfile, and kept for the next run.

podman's own cache decides what is built anew.  Each image that is needed has a name with the prefix, the two stages
included; an image that lost its name to a newer one is removed.

No registry is used: mmdebstrap makes the base from Debian's packages, as bare as Debian's slim image.

``rebuild`` makes an image anew as a release does, without podman's cache, and ``layers`` reads the files of an image.
"""

import ast
import hashlib
import json
import os
import resource
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from support import downloads
from support.cli import CHECKOUT

PREFIX = "localhost/binfmtd-test"
LABEL = "binfmtd-test"
BUILD_SECONDS = 900
# What makes Debian's slim image slim.
SLIM = (
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/locale/*",
)
DEBOOTSTRAP = ("mmdebstrap", "--quiet", "--variant=minbase", *(f"--dpkgopt={option}" for option in SLIM), "trixie")
# What a site's pip may need to reach its packages: the secret `ca`, and build arguments of these names.
PIP_OPTIONS = ("cert", "index-url", "extra-index-url", "trusted-host")
BUILDER = CHECKOUT / "packaging/image/build"


class BuildError(Exception):
    """An image could not be built; the message is the builder's."""


def build(target: str, emulators: str | None = "all", tries: int = 3) -> str:
    """Return the name of the image of one target of the Containerfile, made where it is not there yet.

    Without ``emulators`` it has those of the Containerfile's default.  A build downloads packages, so it is tried
    again: a mirror or the network may fail for a moment.
    """
    base = base_image()
    tag = "" if emulators == "all" else ":default" if emulators is None else f":{_digest(emulators)}"
    _build("build", f"{PREFIX}/build", base, tries=tries)
    _build("emulators", f"{PREFIX}/emulators{tag}", base, emulators, tries)
    _build(target, f"{PREFIX}/{target}{tag}", base, emulators, tries)
    _prune()
    return f"{PREFIX}/{target}{tag}"


def _prune() -> None:
    """Remove images that have lost their names to newer ones, or that had none."""
    _podman("image", "prune", "--force", "--filter", f"label={LABEL}")


def storage() -> str:
    """Return the directory where podman keeps these images."""
    return _podman("info", "--format", "{{.Store.GraphRoot}}").strip()


def rebuild(name: str, base: str, *options: str, variables: Mapping[str, str], authority: Path | None = None) -> str:
    """Build slim anew as a release does, with these variables, and return the image's name.

    With an authority the build has the certificates of that one alone.
    """
    full = f"{PREFIX}/{name}"
    options = (*_options(base, authority), "--no-cache", f"--layer-label={LABEL}", *options)
    _checked(str(BUILDER), "podman", "slim", full, *options, variables=variables)
    return full


def derive(name: str, base: str, *lines: str, options: Sequence[str] = ()) -> str:
    """Build an image from a base by these lines of a Containerfile, and return its name."""
    full = f"{PREFIX}/{name}"
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "Containerfile"
        file.write_text("\n".join([f"FROM {base}", *lines]))
        _podman("build", "--isolation=chroot", *_limits(), *options, f"--file={file}", f"--tag={full}", directory)
    return full


def inspect(name: str) -> dict[str, Any]:
    """Return what podman knows of an image."""
    found: dict[str, Any] = json.loads(_podman("image", "inspect", name))[0]
    return found


def remove(*names: str) -> None:
    """Remove images that are not kept for the next run, with those of their stages."""
    _podman("image", "rm", "--ignore", *names)
    _prune()


class File(NamedTuple):
    """A member of a layer, with all that its digest depends on; ``data`` is the content of a regular file."""

    kind: bytes
    mode: int
    owner: tuple[int, int]
    time: float
    link: str
    headers: tuple[tuple[str, str], ...]
    data: bytes


def layers(name: str, first: int = 0) -> list[dict[str, File]]:
    """Return the layers of an image, from the ``first`` on, each by the paths of its members."""
    with _saved(name) as (archive, manifest):
        found = []
        for path in manifest["Layers"][first:]:
            stream = archive.extractfile(path)
            assert stream is not None
            with tarfile.open(fileobj=stream) as layer:
                found.append({member.name: _file(layer, member) for member in layer})
        return found


def configuration(name: str) -> str:
    """Return the configuration of an image, as it is stored."""
    with _saved(name) as (archive, manifest):
        stream = archive.extractfile(manifest["Config"])
        assert stream is not None
        return stream.read().decode()


def differences(first: Sequence[Mapping[str, File]], second: Sequence[Mapping[str, File]]) -> list[str]:
    """Name the members in which two images' layers differ."""
    found = [] if len(first) == len(second) else [f"{len(first)} layers, {len(second)} layers"]
    for number, (one, other) in enumerate(zip(first, second, strict=False)):
        for path in sorted(one.keys() | other.keys()):
            a, b = one.get(path), other.get(path)
            if a is None or b is None:
                found.append(f"layer {number}: {path}: only in one")
            elif a != b:
                what = [field for field in File._fields if getattr(a, field) != getattr(b, field)]
                found.append(f"layer {number}: {path}: {', '.join(what)}")
    return found


@contextmanager
def exported(name: str) -> Iterator[Path]:
    """Yield a tar of an image's root directory."""
    container = _podman("create", name).strip()
    try:
        with tempfile.TemporaryDirectory() as directory:
            archive = Path(directory) / "root.tar"
            _podman("export", f"--output={archive}", container)
            yield archive
    finally:
        _podman("rm", container)


def _file(layer: tarfile.TarFile, member: tarfile.TarInfo) -> File:
    stream = layer.extractfile(member) if member.isreg() else None
    return File(
        kind=member.type,
        mode=member.mode,
        owner=(member.uid, member.gid),
        time=member.mtime,
        link=member.linkname,
        headers=tuple(sorted(member.pax_headers.items())),
        data=stream.read() if stream else b"",
    )


@contextmanager
def _saved(name: str) -> Iterator[tuple[tarfile.TarFile, dict[str, Any]]]:
    with tempfile.TemporaryDirectory() as directory:
        path = f"{directory}/image.tar"
        _podman("save", "--format=docker-archive", f"--output={path}", name)
        with tarfile.open(path) as archive:
            stream = archive.extractfile("manifest.json")
            assert stream is not None
            yield archive, json.load(stream)[0]


def base_image() -> str:
    """Return the name of the base, made where it is not there yet."""
    name = f"{PREFIX}/base:{_digest(*DEBOOTSTRAP)}"
    if _run("podman", "image", "exists", name).returncode != 0:
        with tempfile.TemporaryDirectory() as directory:
            archive = f"{directory}/base.tar"
            downloads.make([*DEBOOTSTRAP, archive], Path(archive))
            _podman("import", archive, name)
    return name


@cache
def _build(target: str, name: str, base: str, emulators: str | None = "all", tries: int = 1) -> None:
    # docker's format has HEALTHCHECK.
    options = ["--format=docker", *_options(base), f"--layer-label={LABEL}", f"--label={LABEL}="]
    if emulators is not None:
        options.append(f"--build-arg=EMULATORS={emulators}")
    for left in reversed(range(tries)):
        try:
            _podman("build", *options, f"--target={target}", f"--tag={name}", str(CHECKOUT))
        except BuildError:
            if not left:
                raise
        else:
            return


def _options(base: str, authority: Path | None = None) -> list[str]:
    """Return the options of each build, with this machine's certificates or those of an authority."""
    # chroot and the host's network need nothing from the kernel that a container may lack; podman's own limits are
    # higher than those of many a container.
    options = ["--isolation=chroot", "--network=host", *_limits(), f"--build-arg=BASE={base}"]
    settings = pip_settings()
    own = settings.pop("cert", None)
    if certificates := authority or own:
        options.append(f"--secret=id=ca,src={certificates}")
    options += [f"--build-arg=PIP_{key.upper().replace('-', '_')}={value}" for key, value in settings.items()]
    return options


def _limits() -> Iterator[str]:
    for name, number in (("nproc", resource.RLIMIT_NPROC), ("nofile", resource.RLIMIT_NOFILE)):
        hard = resource.getrlimit(number)[1]
        yield f"--ulimit={name}={hard}:{hard}"


def pip_settings() -> dict[str, str]:
    """Return those settings of pip, from its files and variables here, that it may need to reach its packages."""
    settings: dict[str, str] = {}
    for line in _checked(sys.executable, "-m", "pip", "config", "list").splitlines():
        key, _, value = line.partition("=")
        option = key.rpartition(".")[2]
        if option in PIP_OPTIONS:
            settings[option] = str(ast.literal_eval(value))
    return settings


def _podman(*arguments: str) -> str:
    return _checked("podman", *arguments)


def _checked(*command: str, variables: Mapping[str, str] | None = None) -> str:
    done = _run(*command, variables=variables)
    if done.returncode != 0:
        raise BuildError(
            f"{' '.join(command)}: exit status {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-4000:]}"
        )
    return done.stdout


def _run(*command: str, variables: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PODMAN_IGNORE_CGROUPSV1_WARNING": "1", **(variables or {})}
    return subprocess.run(
        command, capture_output=True, text=True, timeout=BUILD_SECONDS, check=False, env=environment, cwd=Path("/")
    )


def _digest(*words: str) -> str:
    return hashlib.sha256("\0".join(words).encode()).hexdigest()[:12]
