"""``binfmtd sandbox``: its user ids, the user of the command, and its root tree."""

import os
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from support.cli import BINFMTD, Result, run, unprivileged_python
from support.instance import MOUNT_POINT, Instance
from support.programs import foreign_program

from binfmtd.catalog.architectures import CATALOG

NEEDS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root has users other than itself")
SUBORDINATE = 100_000
TREES_OWNER = 30_000  # an id that `everybody` includes
TREE = ("proc", "dev", "etc", "sys", "tmp", "usr")
LINKS = ("bin", "lib", "lib64", "sbin")

Sandbox = Callable[..., Result]


@pytest.fixture
def tree(open_directory: Path) -> Path:
    """Return a root tree that all users may read, with a program for aarch64, and room for this host's /usr."""
    for name in TREE:
        (open_directory / name).mkdir()
    for name in LINKS:
        if Path(f"/{name}").is_symlink():
            (open_directory / name).symlink_to(f"usr/{name}")
    foreign_program(open_directory / "program", CATALOG["aarch64"])
    return open_directory


def sandbox(instance: Instance, *arguments: str, tree: Path | None = None) -> Result:
    """Run `sandbox` as root, in an instance that stands for the host's."""
    command = [*BINFMTD, "sandbox", "--arch", "arm64", *arguments]
    laid = "" if tree is None else f"mount --rbind /usr {tree}/usr && "
    return run(instance.entering(["sh", "-c", f"{laid}exec {shlex.join(command)}"]))


def as_user(*arguments: str, before: str = "true") -> Result:
    """Run `sandbox` as an ordinary user, in a mount namespace that the script ``before`` prepares."""
    python = unprivileged_python()
    command = ["env", "TMPDIR=/tmp", *python, "-m", "binfmtd", "sandbox", "--arch", "arm64", *arguments]
    return run(["unshare", "--mount", "sh", "-c", f"{before}; cd /; exec {shlex.join(command)}"])


def given_ids(tmp_path: Path) -> str:
    """Return a script that gives the ordinary user subordinate ids, as useradd does."""
    file = tmp_path / "sub"
    file.write_text(f"nobody:{SUBORDINATE}:65536\n")
    return f"mount --bind {file} /etc/subuid && mount --bind {file} /etc/subgid"


IDS = ("--", "sh", "-c", "id -u; cat /proc/self/uid_map")


def test_arch(instance: Instance) -> None:
    """`--arch` names the handlers, by any of their names."""
    result = sandbox(instance, "--", "ls", MOUNT_POINT)
    assert (result.status, result.stdout.split(), result.stderr) == (0, ["qemu-aarch64", "register", "status"], "")


@NEEDS_ROOT
def test_alone(tmp_path: Path) -> None:
    """Without subordinate ids there is only one user: root, which outside is the caller."""
    file = tmp_path / "none"
    file.touch()
    result = as_user(*IDS, before=f"mount --bind {file} /etc/subuid && mount --bind {file} /etc/subgid")
    assert (result.status, result.stdout.split(), result.stderr) == (0, ["0", "0", "0", "1"], "")


@NEEDS_ROOT
@pytest.mark.skipif(shutil.which("newuidmap") is None, reason="newuidmap is not here (Debian: apt-get install uidmap)")
def test_with_subordinate_ids(tmp_path: Path, tree: Path) -> None:
    """With subordinate ids (/etc/subuid, newuidmap) other users follow root, and their files can be made."""
    made = tree / "tmp"
    made.chmod(0o777)
    script = f"cat /proc/self/uid_map; touch {made}/file && chown 5:7 {made}/file"
    result = as_user("--", "sh", "-c", script, before=given_ids(tmp_path))
    assert (result.status, result.stdout.split(), result.stderr) == (0, ["0", "0", "1", "1", "1", "65536"], "")
    found = (made / "file").stat()
    assert (found.st_uid, found.st_gid) == (SUBORDINATE + 4, SUBORDINATE + 6)


@NEEDS_ROOT
def test_keep_user() -> None:
    """With `--keep-user` the command runs as the caller, with the handlers and without capabilities."""
    result = as_user("--keep-user", "--", "sh", "-c", f"id -u; grep CapEff /proc/self/status; ls {MOUNT_POINT}")
    user, _, capabilities, *entries = result.stdout.split()
    assert (result.status, user, int(capabilities, 16), result.stderr) == (0, "65534", 0, "")
    assert entries == ["qemu-aarch64", "register", "status"]


def test_root(instance: Instance, tree: Path) -> None:
    """`--root` runs the command in the tree, foreign programs too, with /proc, /dev and resolv.conf as for a build."""
    result = sandbox(instance, "--root", str(tree), "--", "/program", tree=tree)
    assert (result.status, result.stderr) == (42, "")
    script = (
        "pwd; ls -d /program; echo x >/dev/null; head -c 1 /dev/zero | wc -c; readlink /dev/fd /proc/self/root; "
        "test -c /dev/urandom && test -w /dev/shm && test -d /sys/kernel; cat /etc/resolv.conf"
    )
    result = sandbox(instance, "--root", str(tree), "--", "sh", "-c", script, tree=tree)
    resolv_conf = Path("/etc/resolv.conf")
    known = resolv_conf.read_text() if resolv_conf.exists() else ""
    assert (result.status, result.stderr) == (0, "")
    assert result.stdout == f"/\n/program\n1\n/proc/self/fd\n/\n{known}"
    assert [path.name for path in (tree / "dev").iterdir()] == []


def test_root_without_a_command_is_a_shell_in_it(instance: Instance, tree: Path) -> None:
    """Without a command the tree's /bin/sh runs, whatever $SHELL is outside, and its exit status is returned."""
    command = shlex.join([*BINFMTD, "sandbox", "--arch", "arm64", "--root", str(tree)])
    laid = f"mount --rbind /usr {tree}/usr && echo 'cd /; /program; exit $?' | SHELL=/none {command}"
    assert run(instance.entering(["sh", "-c", laid])).status == 42


def test_a_tree_of_subordinate_ids(everybody: Instance, tree: Path) -> None:
    """If a subordinate id owns the tree, as mmdebstrap makes it, that id is root inside, and may write."""
    for path in (tree, *tree.iterdir()):
        os.chown(path, TREES_OWNER, TREES_OWNER, follow_symlinks=False)
    script = "id -u; stat -c %u /program; touch /new; chown 9 /new"
    result = sandbox(everybody, "--root", str(tree), "--", "sh", "-c", script, tree=tree)
    assert result.stderr == ""
    assert (result.status, result.stdout.split()) == (0, ["0", "0"])
    assert (tree / "new").stat().st_uid == TREES_OWNER + 9


@pytest.mark.parametrize("what", ["nothing", "no tree", "a file", "our own"])
def test_what_is_no_tree(instance: Instance, tmp_path: Path, what: str) -> None:
    """A --root that is no root tree is one error, before anything is mounted or started."""
    path = tmp_path / "x"
    if what == "no tree":
        path.mkdir()
    elif what == "a file":
        path.touch()
    elif what == "our own":
        path.symlink_to("/")
    result = sandbox(instance, "--root", str(path), "--", "true")
    assert result.status == 1
    wanted = "leave --root out" if what == "our own" else "--root takes the root directory of a system"
    assert wanted in result.message


def test_a_resolv_conf_that_leads_elsewhere(instance: Instance, tree: Path) -> None:
    """A resolv.conf that is a link is left alone, though it may dangle inside."""
    (tree / "etc/resolv.conf").symlink_to("../run/systemd/resolve/stub-resolv.conf")
    result = sandbox(instance, "--root", str(tree), "--", "readlink", "/etc/resolv.conf", tree=tree)
    assert (result.status, result.stdout) == (0, "../run/systemd/resolve/stub-resolv.conf\n")
