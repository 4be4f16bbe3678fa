"""The files that `make install` installs, checked by systemd's own tools and by path."""

from pathlib import Path

import pytest
from support.booted import DROP_INS, UNIT, Booted
from support.cli import CHECKOUT, run

pytestmark = pytest.mark.systemd

# Of 100, which systemd-analyze prints as 1.2 of 10; 0.1 of it is that the unit may use real-time priority, and 0.2 that
# threads may change their own priorities.
HIGHEST_EXPOSURE = 12
HIGHEST_SEALED = 16
DROP_IN_FILES = sorted((CHECKOUT / "systemd" / "drop-ins").glob("*.conf"))


def test_files(machine: Booted) -> None:
    """Command, package with bytecode, unit, config and examples are at a distribution's paths, readable by all."""
    package = "usr/lib/python3/dist-packages/binfmtd"
    share = "usr/share"
    expected = [
        *(f"{share}/man/man8/binfmtd.8", f"{share}/man/man5/binfmtd.toml.5", f"{share}/man/man1/binfmt.1"),
        *(f"{share}/bash-completion/completions/binfmtd", f"{share}/zsh/site-functions/_binfmtd"),
        *("usr/bin/binfmtd", "usr/bin/binfmt", "usr/lib/systemd/system/binfmtd.service", "etc/binfmtd/binfmtd.toml"),
        *("usr/share/doc/binfmtd/README.md", "usr/share/doc/binfmtd/examples/drop-ins/zz-mount.conf"),
        *(f"{package}/daemon/loop.py", f"{package}/daemon/__pycache__/loop.cpython-313.pyc"),
    ]
    assert [path for path in expected if not (machine.root / path).is_file()] == []
    assert machine.run("setpriv", "--reuid=1000", "--clear-groups", "binfmtd", "arch", "riscv64").status == 0


def test_exposure(machine: Booted) -> None:
    """`systemd-analyze security` rates the unit at 1.2 or less."""
    judged = machine.run(
        *("systemd-analyze", "security", "--offline=yes", f"--threshold={HIGHEST_EXPOSURE}"),
        f"/usr/lib/systemd/system/{UNIT}",
    )
    assert judged.status == 0, judged.stdout.splitlines()[-1]


def test_the_unit_is_understood(machine: Booted) -> None:
    """`systemd-analyze verify` reports nothing about the unit."""
    judged = machine.run("systemd-analyze", "verify", "--man=no", f"/usr/lib/systemd/system/{UNIT}")
    assert (judged.status, judged.stdout, judged.stderr) == (0, "", "")


@pytest.mark.parametrize("drop_in", DROP_IN_FILES, ids=lambda path: path.stem)
def test_the_drop_ins_are_understood(machine: Booted, drop_in: Path) -> None:
    """`systemd-analyze verify` reports nothing about the unit with any one of the drop-ins."""
    path = f"{DROP_INS}/{drop_in.name}"
    machine.write(path, drop_in.read_text())
    try:
        judged = machine.run("systemd-analyze", "verify", "--man=no", UNIT)
        assert (judged.status, judged.stdout, judged.stderr) == (0, "", "")
    finally:
        (machine.root / path.lstrip("/")).unlink()


def test_exposure_with_the_seal(machine: Booted) -> None:
    """With `sealed.conf` the rating is 1.6 or less: one capability more and four system calls, in the same sandbox."""
    path = f"{DROP_INS}/sealed.conf"
    machine.write(path, (CHECKOUT / "systemd/drop-ins/sealed.conf").read_text())
    try:
        machine.systemctl("daemon-reload")
        judged = machine.run("systemd-analyze", "security", "--no-pager", f"--threshold={HIGHEST_SEALED}", UNIT)
        assert judged.status == 0, judged.stdout.splitlines()[-1]
        assert machine.show("CapabilityBoundingSet") == "cap_sys_admin"
        mounting = set(machine.run("systemd-analyze", "syscall-filter", "@mount").stdout.split())
        allowed = set(machine.show("SystemCallFilter").split())
        assert mounting & allowed == {"open_tree", "fspick", "fsconfig", "mount_setattr"}
    finally:
        (machine.root / path.lstrip("/")).unlink()
        machine.systemctl("daemon-reload")


def test_a_daemon_that_mounts_is_not_in_a_mount_namespace(machine: Booted) -> None:
    """With `zz-mount.conf` the daemon is in the host's mount namespace, also beside a drop-in with paths to write to.

    So its mounts appear on the host.
    """
    names = ("zz-mount.conf", "textfile.conf")
    for name in names:
        machine.write(f"{DROP_INS}/{name}", (CHECKOUT / "systemd/drop-ins" / name).read_text())
    try:
        machine.systemctl("daemon-reload")
        machine.systemctl("restart", UNIT)
        spaces = machine.run("readlink", "/proc/1/ns/mnt", f"/proc/{machine.show('MainPID')}/ns/mnt").stdout.split()
        assert len(spaces) == 2
        assert spaces[0] == spaces[1]
    finally:
        for name in names:
            (machine.root / f"{DROP_INS}/{name}".lstrip("/")).unlink()
        machine.systemctl("daemon-reload")


def test_uninstall_leaves_the_config(tmp_path: Path) -> None:
    """`make uninstall` removes what `make install` installed, manual pages and completions too, but not the config."""
    command = ("make", "-C", str(CHECKOUT), f"DESTDIR={tmp_path}", "PREFIX=/usr")
    assert run([*command, "install"]).status == 0
    assert run([*command, "uninstall"]).status == 0
    assert [path.name for path in tmp_path.rglob("*") if not path.is_dir()] == ["binfmtd.toml"]


def test_a_strict_umask(tmp_path: Path) -> None:
    """All users may read what `make install` installs, whatever the umask of the administrator is."""
    install = f"umask 077; make -C '{CHECKOUT}' DESTDIR='{tmp_path}/tree' PREFIX=/usr install"
    assert run(["sh", "-c", install]).status == 0
    paths = [path for path in (tmp_path / "tree").rglob("*") if path.stat().st_mode & 0o004 == 0]
    assert paths == []
