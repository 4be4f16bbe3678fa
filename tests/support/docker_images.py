"""The images that tests run with Docker or Kubernetes: built by a Docker Engine, with the README's commands.

The engines use one data directory, one after the other, so the next run finds Docker's cache in build/docker.
"""

import shutil
import subprocess
from pathlib import Path

from support import downloads
from support.cli import CHECKOUT
from support.documents import fragments
from support.engine import OUR_IMAGES, Engine
from support.foreign_tree import CROSS_COMPILER
from support.images import DEBOOTSTRAP, pip_settings

NEEDED = ("dockerd", "docker", "slirp4netns", "iptables", "mmdebstrap", CROSS_COMPILER)
BUILD = CHECKOUT / "build" / "docker"
DATA = BUILD / "data"
BASE = "debian:trixie-slim"  # of the Containerfile


def copy_checkout(into: Path) -> Path:
    """Copy the files that a commit would have now; return their directory, in which the documents' lines run."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=True)
    for name in filter(None, listed.stdout.split("\0")):
        if (CHECKOUT / name).is_file():
            (into / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(CHECKOUT / name, into / name)
    return into


def build_images(engine: Engine, checkout: Path) -> None:
    """Build our images with the README's commands, on the base that the Containerfile names.

    A build downloads packages, so it is tried again: a mirror or the network may fail for a moment.
    """
    engine.remove_containers()
    if engine.docker("image", "inspect", BASE).status != 0:
        engine.import_tree(base_archive(), BASE, "linux/amd64")
    for fragment in fragments("README.md"):
        if fragment.text.startswith("docker build "):
            engine.run_line(fragment.text, checkout, tries=3)


def name_images(engine: Engine, registry: str, tag: str = "latest") -> list[str]:
    """Give our images the names of a registry; return them."""
    names = [f"{registry}/{name}:{tag}" for name in OUR_IMAGES]
    for name, full in zip(OUR_IMAGES, names, strict=True):
        engine.checked("tag", name, full)
    return names


def base_archive() -> Path:
    """Return the archive of a base as bare as Debian's slim image, with the settings that pip needs on this machine."""
    BUILD.mkdir(parents=True, exist_ok=True)
    archive = BUILD / "base.tar"
    downloads.make([*DEBOOTSTRAP, *_pip_hooks(), str(archive)], archive)
    return archive


def foreign_base_archive(engine: Engine, machine: str) -> Path:
    """Return such an archive for another machine, whose programs have to run in the engine."""
    archive, made = BUILD / f"base-{machine}.tar", engine.directory / "base.tar"
    if not archive.exists():
        options = [f"--architectures={machine}", "--skip=check/qemu"]  # that one needs the package arch-test
        downloads.make(engine.entering([*DEBOOTSTRAP, *options, *_pip_hooks(), str(made)]), made)
        shutil.copy(made, archive)
    return archive


def _pip_hooks() -> list[str]:
    settings, hooks = pip_settings(), []
    if certificates := settings.pop("cert", None):
        settings["cert"] = "/usr/local/share/pip.crt"
        hooks.append(f"--customize-hook=install -m 644 {certificates} $1{settings['cert']}")
    lines = "\\n".join(["[global]", *(f"{key} = {value}" for key, value in settings.items())])
    hooks.append(f"--customize-hook=printf '{lines}\\n' >$1/etc/pip.conf")
    return hooks
