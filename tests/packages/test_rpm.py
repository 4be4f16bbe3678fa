"""The RPM package in an empty tree: what is in it, which modes it has, that it runs, and what is left without it.

The tree has no shell, so rpm runs no scriptlets here; test_rpm_systemd.py does.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from support.cli import CHECKOUT, run
from support.required import unavailable

from binfmtd import __version__

pytestmark = pytest.mark.packages

PYTHON = "/usr/bin/python3"
IMPORTS = "import pydantic, pyinotify, structlog"
CONFIG = "/etc/binfmtd/binfmtd.toml"
PROGRAMS = CHECKOUT / "binfmtd/host/deep_programs"
EXPECTED = (
    "/usr/bin/binfmt",
    "/usr/bin/binfmtd",
    "/usr/lib/systemd/system/binfmtd.service",
    "/usr/lib/systemd/system/binfmtd-metrics.socket",
    "/usr/lib/systemd/system/binfmtd-probe.path",
    "/usr/lib/systemd/system/binfmtd-probe.service",
    "/usr/share/bash-completion/completions/binfmtd",
    "/usr/share/doc/binfmtd/README.md",
    "/usr/share/doc/binfmtd/docs/packages.md",
    "/usr/share/doc/binfmtd/examples/config/binfmtd.toml",
    "/usr/share/doc/binfmtd/examples/drop-ins/zz-mount.conf",
    "/usr/share/fish/vendor_completions.d/binfmtd.fish",
    "/usr/share/man/man1/binfmt.1.gz",
    "/usr/share/man/man5/binfmtd.toml.5.gz",
    "/usr/share/man/man7/binfmtd-log.7.gz",
    "/usr/share/man/man7/binfmtd-metrics.7.gz",
    "/usr/share/man/man8/binfmtd.8.gz",
    "/usr/share/zsh/site-functions/_binfmtd",
    CONFIG,
)
# Of Fedora, with python3-pyinotify as another name of python3-inotify from Fedora 45 on.
REQUIRED = {
    "python3 >= 3.11",
    "python3-inotify",
    "python3-pyasyncore",
    "python3-pydantic >= 2.10",
    "python3-structlog",
    "python3-typing-extensions",
    "systemd",
}
Rpm = Callable[..., str]


class Member(NamedTuple):
    """A file of the package, as the package's header has it: owner, mode and rpm's flags (c is %config)."""

    path: str
    mode: str
    owner: str
    flags: str


def query(package: Path, form: str) -> str:
    done = run(["rpm", "--query", "--package", "--queryformat", form, str(package)])
    assert done.status == 0, done.stderr
    return done.stdout


def members(package: Path) -> dict[str, Member]:
    form = "[%{FILENAMES}|%{FILEMODES:perms}|%{FILEUSERNAME}:%{FILEGROUPNAME}|%{FILEFLAGS:fflags}\n]"
    found = [Member(*line.split("|")) for line in query(package, form).splitlines()]
    return {member.path: member for member in found}


def library(package: Path) -> str:
    """Return the directory of the Python package."""
    (found,) = (path for path in members(package) if path.endswith("/binfmtd/__init__.py"))
    return str(Path(found).parent)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    if os.geteuid() != 0:
        unavailable("rpm --root takes root: run this as root")
    return tmp_path


@pytest.fixture
def in_tree(tree: Path) -> Rpm:
    """Return a function that runs rpm on the tree, which has a database of its own, and returns what it prints."""

    def call(*arguments: str) -> str:
        done = run(["rpm", f"--root={tree}", "--dbpath=/var/lib/rpm", *arguments])
        assert done.status == 0, done.stderr
        return done.stdout

    return call


def files(tree: Path) -> set[str]:
    """Return the paths of the tree's files, but for those of rpm's database."""
    return {
        f"/{path.relative_to(tree)}"
        for path in tree.rglob("*")
        if not path.is_dir() and not path.is_relative_to(tree / "var/lib/rpm")
    }


def test_files(rpm: Path) -> None:
    """The package has each file at Fedora's place, all belong to root, and no other user can write to one."""
    found = members(rpm)
    assert [path for path in EXPECTED if path not in found] == []
    # Fedora's rpm leaves the version out.
    assert [path for path in found if path.startswith("/usr/share/licenses/binfmtd") and path.endswith("/LICENSE")]
    package = library(rpm)
    assert {f"{package}/daemon/loop.py", f"{package}-{__version__}.dist-info/METADATA"} <= found.keys()
    assert any(path.startswith(f"{package}/daemon/__pycache__/loop.") for path in found)
    assert {member.owner for member in found.values()} == {"root:root"}
    assert [member for member in found.values() if member.mode[5] == "w" or member.mode[8] == "w"] == []
    assert [member for member in found.values() if member.mode[7] != "r"] == []
    for command in ("/usr/bin/binfmt", "/usr/bin/binfmtd"):
        assert found[command].mode == "-rwxr-xr-x"


def test_config(rpm: Path) -> None:
    """The config is the only %config file, and an upgrade does not replace a changed one."""
    flags = {member.path: member.flags for member in members(rpm).values() if "c" in member.flags}
    assert flags.keys() == {CONFIG}
    assert "n" in flags[CONFIG]


def test_requirements(rpm: Path) -> None:
    """It requires Fedora's packages, recommends emulators, and no foreign program adds a requirement."""
    found = {line.strip() for line in query(rpm, "[%{REQUIRENEVRS}\n]").splitlines()}
    assert found >= REQUIRED
    assert [name for name in found if ".so" in name or "rtld(" in name] == []
    assert query(rpm, "[%{RECOMMENDNEVRS}\n]").splitlines() == ["qemu-user-static"]
    provided = {line.partition(" ")[0] for line in query(rpm, "[%{PROVIDENEVRS}\n]").splitlines()}
    assert provided == {"binfmtd", "config(binfmtd)"}


def test_foreign_programs(rpm: Path, in_tree: Rpm, tree: Path) -> None:
    """rpmbuild has not changed the programs of other architectures, which would be stripped otherwise."""
    in_tree("--nodeps", "--noscripts", "--install", str(rpm))
    programs = [path for path in PROGRAMS.iterdir() if path.is_file()]
    assert len(programs) == 16
    for program in programs:
        installed = tree / library(rpm).lstrip("/") / "host/deep_programs" / program.name
        assert installed.read_bytes() == program.read_bytes(), program.name
        assert installed.stat().st_mode & 0o777 == 0o755


def test_nothing_is_changed_by_the_installation(rpm: Path, in_tree: Rpm, tree: Path) -> None:
    """After `rpm --install` the files are those of the package, as `rpm --verify` compares them."""
    in_tree("--nodeps", "--noscripts", "--install", str(rpm))
    assert in_tree("--verify", "--nodeps", "--noscripts", "binfmtd") == ""
    listed = {path for path, member in members(rpm).items() if not member.mode.startswith("d")}
    assert files(tree) == listed


def test_it_runs(rpm: Path, in_tree: Rpm, tree: Path) -> None:
    """The installed package runs from the tree, and knows its version."""
    if run([PYTHON, "-c", IMPORTS]).status != 0:
        pytest.skip(f"{PYTHON} has no pydantic, pyinotify or structlog here; test_rpm_systemd.py runs the package")
    in_tree("--nodeps", "--noscripts", "--install", str(rpm))
    packages = tree / Path(library(rpm)).parent.relative_to("/")
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(packages)}
    done = run([PYTHON, "-B", "-m", "binfmtd", "--version"], env=environment, cwd="/")
    assert (done.status, done.stdout.split()) == (0, ["binfmtd", __version__]), done.stderr
    done = run([PYTHON, "-B", "-m", "binfmtd", "check", "--arch", "none"], env=environment, cwd="/")
    assert done.status == 0, done.stderr


@pytest.mark.parametrize(("config", "left"), [("", set()), ("settle = '60ms'\n", {f"{CONFIG}.rpmsave"})])
def test_erased_it_leaves_a_changed_config(rpm: Path, in_tree: Rpm, tree: Path, config: str, left: set[str]) -> None:
    """`rpm --erase` leaves no file, but for a config that the administrator has changed, under another name."""
    in_tree("--nodeps", "--noscripts", "--install", str(rpm))
    if config:
        (tree / CONFIG.lstrip("/")).write_text(config)
    in_tree("--nodeps", "--noscripts", "--erase", "binfmtd")
    assert files(tree) == left
    directories = {path.name for path in tree.rglob("*") if path.is_dir() and "binfmtd" in path.name}
    assert directories == ({"binfmtd"} if left else set())
