"""The message of `apply` and of the drop-ins, which write nothing while a daemon runs."""

import os
from pathlib import Path
from typing import Any

import pytest

from binfmtd.cli.one_shot import more_architectures, refused_beside
from binfmtd.daemon.state_files.pause_file import PauseFile
from binfmtd.daemon.state_files.state_dir import RUN, Lock
from binfmtd.host.facts import boot_id
from binfmtd.model.pause import SEAL, Pauses
from binfmtd.report.status_json import write_status


def test_the_reload_of_a_daemon_that_can_be_signalled(tmp_path: Path) -> None:
    """If the daemon runs in this pid namespace, the command in the message names its state directory."""
    lock = Lock(str(tmp_path), RUN)
    try:
        said = refused_beside(os.getpid(), str(tmp_path), more_architectures(["arm64", "s390x"]), [])
    finally:
        lock.release()
    assert said.endswith(
        f': add "arm64", "s390x" to `architectures` in its config, then run `binfmtd reload --state-dir {tmp_path}`'
    )


def test_the_reload_of_a_daemon_in_another_container(tmp_path: Path) -> None:
    """From another pid namespace `binfmtd reload` cannot signal the daemon: the message names its container."""
    said = refused_beside(os.getpid(), str(tmp_path), more_architectures(["arm64"]), [])
    assert said.endswith("then run `binfmtd reload` in the daemon's container")


def test_a_daemon_with_architectures_of_its_own(tmp_path: Path) -> None:
    """The architectures of a daemon's command line are changed there, since a reload of the config does not."""
    config = {"path": "/c.toml", "files": [], "generation": 1, "loaded_at": "", "error": None, "architectures": ["arm"]}
    nothing: dict[str, Any] = {"handlers": [], "contended": [], "paused": [], "foreign": [], "history": []}
    nothing |= {"problem": None, "lacking": None, "mount": None, "last_pass": None, "seal": {"state": "", "reason": ""}}
    nothing |= {
        "probed": {"at": None, "error": None, "architectures": []},
        "foreign_count": {"enabled": 0, "disabled": 0},
    }
    nothing |= {"log_lines_dropped": 0, "passes": 0, "repairs": 0}
    write_status(str(tmp_path), {"state": "converged", "config": config, **nothing})
    said = refused_beside(os.getpid(), str(tmp_path), more_architectures(["arm64"]), ["qemu-aarch64"])
    assert said.endswith('add "arm64" to the daemon\'s --arch or $BINFMTD_ARCH (now arm), then restart the daemon')
    assert "change one in /c.toml, then run `binfmtd reload`" in refused_beside(1, str(tmp_path), "change one", ["one"])


@pytest.mark.parametrize(
    ("names", "ends"),
    [([], "resume --state-dir {}` ends that"), (["two"], None), (["two", "one"], "{} one` ends that"), ([SEAL], None)],
)
def test_a_daemon_whose_repairs_are_paused(tmp_path: Path, names: list[str], ends: str | None) -> None:
    """The message names the command that ends the pause of the entries that it is about."""
    file = PauseFile(str(tmp_path), boot_id())
    assert file.write(Pauses().with_(names, float("inf")))
    said = refused_beside(os.getpid(), str(tmp_path), "change one", ["one"])
    assert ("has paused its repairs" in said) is (ends is not None)
    assert said.endswith(ends.format(tmp_path) if ends else "in the daemon's container")
