"""The images that the tests run: built by podman from the Containerfile, and kept for the next run.

podman's own cache decides what is built anew.  Each image that is needed has a name with the prefix, the two stages
included; an image that lost its name to a newer one is removed.

No registry is used: mmdebstrap makes the base from Debian's packages, as bare as Debian's slim image.
"""

import ast
import hashlib
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

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
# What a site's pip may need to reach its packages; the Containerfile takes them under these names.
PIP_OPTIONS = ("cert", "index-url", "extra-index-url", "trusted-host")


class BuildError(Exception):
    """An image could not be built; the message is the builder's."""


def build(target: str, emulators: str | None = "all") -> str:
    """Return the name of the image of one target of the Containerfile, made where it is not there yet.

    Without ``emulators`` it has those of the Containerfile's default.
    """
    base = _base()
    tag = "" if emulators == "all" else ":default" if emulators is None else f":{_digest(emulators)}"
    _build("build", f"{PREFIX}/build", base)
    _build("emulators", f"{PREFIX}/emulators{tag}", base, emulators)
    _build(target, f"{PREFIX}/{target}{tag}", base, emulators)
    _podman("image", "prune", "--force", "--filter", f"label={LABEL}")  # those that lost their names to newer ones
    return f"{PREFIX}/{target}{tag}"


def storage() -> str:
    """Return the directory where podman keeps these images."""
    return _podman("info", "--format", "{{.Store.GraphRoot}}").strip()


def _base() -> str:
    name = f"{PREFIX}/base:{_digest(*DEBOOTSTRAP)}"
    if _run("podman", "image", "exists", name).returncode != 0:
        with tempfile.TemporaryDirectory() as directory:
            archive = f"{directory}/base.tar"
            _checked(*DEBOOTSTRAP, archive)
            _podman("import", archive, name)
    return name


@cache
def _build(target: str, name: str, base: str, emulators: str | None = "all") -> None:
    # chroot and the host's network need nothing from the kernel that a container may lack; docker's format has
    # HEALTHCHECK; podman's own limits are higher than those of many a container.
    options = ["--isolation=chroot", "--network=host", "--format=docker", *_limits(), *_pip_options()]
    options += [f"--build-arg=BASE={base}", f"--layer-label={LABEL}"]
    if emulators is not None:
        options.append(f"--build-arg=EMULATORS={emulators}")
    _podman("build", *options, f"--label={LABEL}=", f"--target={target}", f"--tag={name}", str(CHECKOUT))


def _limits() -> Iterator[str]:
    for name, number in (("nproc", resource.RLIMIT_NPROC), ("nofile", resource.RLIMIT_NOFILE)):
        hard = resource.getrlimit(number)[1]
        yield f"--ulimit={name}={hard}:{hard}"


def _pip_options() -> Iterator[str]:
    """Yield the build options that give pip its settings here."""
    settings = pip_settings()
    if certificates := settings.get("cert"):
        # Not at their path here, where Debian's package of certificates writes.
        settings["cert"] = "/mnt/pip.crt"
        yield f"--volume={certificates}:{settings['cert']}:ro"
    for option, value in settings.items():
        yield f"--build-arg=PIP_{option.upper().replace('-', '_')}={value}"


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


def _checked(*command: str) -> str:
    done = _run(*command)
    if done.returncode != 0:
        raise BuildError(
            f"{' '.join(command)}: exit status {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-4000:]}"
        )
    return done.stdout


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PODMAN_IGNORE_CGROUPSV1_WARNING": "1"}
    return subprocess.run(
        command, capture_output=True, text=True, timeout=BUILD_SECONDS, check=False, env=environment, cwd=Path("/")
    )


def _digest(*words: str) -> str:
    return hashlib.sha256("\0".join(words).encode()).hexdigest()[:12]
