"""Build the one file, build/onefile/binfmtd: ``python packaging/onefile/make.py`` (`make one-file`).

1. mmdebstrap makes a root tree of Debian 12, with its static library of Python and a C compiler.  The tree is kept.
2. pip downloads the packages that pyproject.toml requires, for that Python.
3. freeze.py makes the program, inside of the tree.

A program runs with the glibc of its build or a later one, so the tree is older than the hosts that the file is for.
"""

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parents[1]
BUILD = CHECKOUT / "build" / "onefile"
TREE = BUILD / "tree"
SUITE = "bookworm"
PYTHON = "3.11"  # Debian 12's
DEBIAN = ("gcc", "libc6-dev", "libexpat1-dev", f"libpython{PYTHON}-dev", f"python{PYTHON}", "zlib1g-dev")
# Debian's packages of which parts are in the program.
PARTS: tuple[str, ...] = (f"libpython{PYTHON}-dev", f"libpython{PYTHON}-stdlib", "libexpat1-dev", "zlib1g-dev")
PARTS += ("libbz2-1.0", "libffi8", "liblzma5")
WITHOUT_WHEEL = ("pyinotify",)  # on PyPI
SOURCES = ("freeze.py", "launcher.c", "no_tls.py", "start.py", "tables.h")
PATH = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}


def main() -> None:
    """Make the file, and print what it requires."""
    if os.geteuid() != 0:
        sys.exit("make: one-file enters a root tree, which takes root: run it as root")
    BUILD.mkdir(parents=True, exist_ok=True)
    make_tree()
    source = TREE / "src"
    shutil.rmtree(source, ignore_errors=True)
    source.mkdir()
    for name in SOURCES:
        shutil.copy(HERE / name, source)
    ignored = shutil.ignore_patterns("__pycache__", "source")
    shutil.copytree(CHECKOUT / "binfmtd", source / "application" / "binfmtd", ignore=ignored)
    print("downloading the packages, and linking the program", flush=True)
    download(source / "packages")
    in_tree(f"/usr/bin/python{PYTHON}", "-I", "-B", "/src/freeze.py")
    program = BUILD / "binfmtd"
    unfinished = program.with_suffix(".unfinished")
    shutil.copy(source / "out" / "binfmtd", unfinished)
    unfinished.chmod(0o755)
    unfinished.rename(program)  # the old one may be running
    glibc = (source / "out" / "glibc").read_text().strip()
    (BUILD / "glibc").write_text(f"{glibc}\n")
    parts = list(contents(source / "packages"))
    (BUILD / "contents").write_text("".join(f"{line}\n" for line in parts))
    print(
        f"{program.relative_to(CHECKOUT)}: {len(parts)} parts, {program.stat().st_size / 1e6:.1f} MB, for "
        f"{platform.machine()} with glibc {glibc} or later; {BUILD.relative_to(CHECKOUT)}/contents lists its parts"
    )


def make_tree() -> None:
    """Make the root tree, unless the one that is there was made with the same command."""
    options = ["--dpkgopt=force-unsafe-io", '--aptopt=Acquire::Check-Valid-Until "false"']
    command = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(DEBIAN)}", *options, SUITE]
    recipe = hashlib.sha256("\0".join(command).encode()).hexdigest()
    mark = TREE / "recipe"
    if mark.is_file() and mark.read_text() == recipe:
        return
    print(f"making a root tree of Debian 12, {TREE.relative_to(CHECKOUT)}: some minutes, once", flush=True)
    shutil.rmtree(TREE, ignore_errors=True)
    TREE.mkdir()
    archive = BUILD / "tree.tar"
    subprocess.run([*command, str(archive)], check=True, cwd="/")
    # Without devices, which the build does not use, and which some containers cannot make.
    subprocess.run(["tar", "--extract", f"--file={archive}", f"--directory={TREE}", "--exclude=./dev/*"], check=True)
    archive.unlink()
    mark.write_text(recipe)


def download(target: Path) -> None:
    """Download the packages that binfmtd requires, with the ``metrics`` extra, for the tree's Python."""
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["metrics"]]
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-compile", "--target", str(target)]
    pip += ["--no-warn-conflicts", "--root-user-action=ignore"]  # nothing is installed into this Python
    wheels = ["--only-binary=:all:", "--implementation=cp", f"--python-version={PYTHON}"]
    wheels += [f"--abi=cp{PYTHON.replace('.', '')}", f"--platform=manylinux2014_{platform.machine()}"]
    subprocess.run([*pip, *wheels, *(each for each in wanted if each not in WITHOUT_WHEEL)], check=True)
    subprocess.run([*pip, "--no-deps", *WITHOUT_WHEEL], check=True)


def in_tree(*command: str) -> str:
    """Run a command in the tree, and return what it prints."""
    chroot = ["chroot", str(TREE), *command]
    return subprocess.run(chroot, check=True, env=PATH, stdout=subprocess.PIPE, text=True).stdout


def contents(packages: Path) -> Iterator[str]:
    """Yield the name and the version of each part of the program."""
    yield from in_tree("dpkg-query", "--show", "--showformat=Debian ${Package} ${Version}\n", *PARTS).splitlines()
    for found in sorted(packages.glob("*.dist-info")):
        yield f"PyPI {' '.join(found.name.removesuffix('.dist-info').rsplit('-', 1))}"


if __name__ == "__main__":
    main()
