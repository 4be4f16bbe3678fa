"""Debian's packages with static emulators, of four suites: downloaded once, with apt's signatures verified.

The packages are for amd64 by default, whatever this machine is; the cache is build/emulators.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from support.cli import CHECKOUT
from support.kubernetes_programs import mirror
from support.required import unavailable

BUILD = CHECKOUT / "build" / "emulators"
PACKAGES = {"bullseye": "qemu-user-static", "bookworm": "qemu-user-static", "trixie": "qemu-user", "sid": "qemu-user"}


def package(suite: str, machine: str = "amd64") -> Path:
    """Return the .deb of a suite's emulators for a machine; skip the test if apt cannot download it."""
    return download(suite, PACKAGES[suite], _place(suite, machine), machine)


def download(suite: str, name: str, place: Path | None = None, machine: str = "amd64") -> Path:
    """Return the .deb of any package for a machine, kept in ``place``; skip the test if apt cannot download it."""
    place = place or BUILD / f"{suite}-{name}"
    if found := sorted(place.glob("*.deb")):
        return found[-1]
    lists = place / "lists"  # apt removes other files there
    (lists / "partial").mkdir(parents=True, exist_ok=True)
    (place / "empty").touch()
    keys = sorted(Path("/usr/share/keyrings").glob("debian-archive-keyring.*"))
    if not keys:
        unavailable("not here: debian-archive-keyring; `make test-emulators` installs it")
    (place / "sources").write_text(f"deb [signed-by={keys[0]} arch={machine}] {mirror()} {suite} main\n")
    settings = {
        "Dir::Etc::SourceList": place / "sources",
        "Dir::Etc::SourceParts": "-",
        "Dir::State::Lists": lists,
        "Dir::State::status": place / "empty",
        "Dir::Cache::pkgcache": "",
        "Dir::Cache::srcpkgcache": "",
        "APT::Architecture": machine,
        "APT::Sandbox::User": "root" if os.geteuid() == 0 else "",
        "Acquire::Check-Valid-Until": "false",
    }
    apt = ["apt-get", "-qq", *(f"-o{key}={value}" for key, value in settings.items())]
    for arguments in (["update"], ["download", name]):
        done = subprocess.run([*apt, *arguments], cwd=place, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            for half in place.glob("*.deb"):
                half.unlink()
            pytest.skip(f"apt cannot download {name} of {suite}: {done.stderr.strip().splitlines()[-1:]}")
    shutil.rmtree(lists)
    return download(suite, name, place, machine)


def version(suite: str) -> str:
    """Return how QEMU's version begins, as the package's own version has it: it may lack the last number."""
    asked = ["dpkg-deb", "--field", str(package(suite)), "Version"]
    shown = subprocess.run(asked, capture_output=True, text=True, check=True)
    return re.split(r"[+~-]", shown.stdout.strip().partition(":")[2])[0]


def emulator(suite: str, name: str) -> Path:
    """Return a suite's emulator of an architecture."""
    directory = unpacked(suite)
    return next(path for path in (directory / f"qemu-{name}-static", directory / f"qemu-{name}") if path.exists())


def unpacked(suite: str, machine: str = "amd64") -> Path:
    """Return the directory of a suite's emulators for a machine, unpacked."""
    place = _place(suite, machine).with_suffix(".unpacked")
    if not place.is_dir():
        new = place.with_suffix(".new")
        shutil.rmtree(new, ignore_errors=True)
        subprocess.run(["dpkg-deb", "-x", str(package(suite, machine)), str(new)], check=True)
        new.rename(place)
    return place / "usr" / "bin"


def _place(suite: str, machine: str) -> Path:
    return BUILD / (suite if machine == "amd64" else f"{suite}-{machine}")
