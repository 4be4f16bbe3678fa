"""``make uninstall`` on a running system leaves no daemon without its files."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.cli import CHECKOUT, Result, run
from support.daemon import StartDaemon
from support.instance import MOUNT_POINT, Instance
from support.programs import install

SYSTEMCTL = """#!/bin/sh
echo "$*" >>'{log}'
case "$*" in *FragmentPath*) echo '{units}/binfmtd.service' ;; esac
"""


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    """Return a PREFIX where our command is installed."""
    prefix = tmp_path / "usr"
    (prefix / "bin").mkdir(parents=True)
    command = f'exec {sys.executable} -m binfmtd "$@" --state-dir {tmp_path}/daemon/state'
    install(prefix / "bin/binfmtd", f"#!/bin/sh\ncd {CHECKOUT}; {command}\n".encode())
    return prefix


def uninstall(prefix: Path, instance: Instance | None = None, **environment: str) -> Result:
    command = ["make", "-s", "-C", str(CHECKOUT), "uninstall", f"PREFIX={prefix}", f"PACKAGES={prefix}/packages"]
    # No variables of the make that runs these tests.
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
    entering = command if instance is None else instance.entering(command)
    return run(entering, env=kept | environment, stdin=subprocess.DEVNULL)


def test_a_daemon_runs(start_daemon: StartDaemon, prefix: Path) -> None:
    """While a daemon runs, uninstall refuses and removes nothing; after its end it succeeds."""
    daemon = start_daemon("architectures = []\n")
    refused = uninstall(prefix)
    assert refused.status != 0
    assert "a daemon still runs" in refused.stderr
    assert (prefix / "bin/binfmtd").exists()
    daemon.terminate()
    done = uninstall(prefix)
    assert (done.status, done.stderr) == (0, "")
    assert not (prefix / "bin/binfmtd").exists()


def test_a_sealed_instance(instance: Instance, prefix: Path) -> None:
    """If binfmt_misc is sealed, uninstall prints the command that opens it."""
    assert instance.run(["mount", "-o", "remount,ro", MOUNT_POINT]).returncode == 0
    done = uninstall(prefix, instance)
    assert done.status == 0, done.stderr
    assert f"mount -o remount,rw {MOUNT_POINT}" in done.stdout


def test_another_prefix(tmp_path: Path) -> None:
    """Where nothing is installed, uninstall fails, and names what decides the place."""
    refused = uninstall(tmp_path / "usr")
    assert refused.status != 0
    assert f"there is no {tmp_path}/usr/bin/binfmtd" in refused.stderr
    assert "PREFIX=" in refused.stderr


def test_the_service_is_stopped(prefix: Path, tmp_path: Path) -> None:
    """Units that systemd loaded from the prefix are stopped and disabled first, with a message; other units are not."""
    log = tmp_path / "log"
    (tmp_path / "bin").mkdir()
    install(tmp_path / "bin/systemctl", SYSTEMCTL.format(log=log, units=prefix / "lib/systemd/system").encode())
    done = uninstall(prefix, PATH=f"{tmp_path}/bin:{os.environ['PATH']}")
    assert (done.status, done.stderr) == (0, "")
    assert "make: stopping and disabling binfmtd.service\n" in done.stdout
    changes = [line for line in log.read_text().splitlines() if not line.startswith("show ")]
    assert changes == ["disable --quiet --now binfmtd.service", "daemon-reload"]
    assert not (prefix / "bin/binfmtd").exists()
