"""The message of `apply` and of the drop-ins, which write nothing while a daemon runs."""

import os
from pathlib import Path

from binfmtd.cli.one_shot import more_architectures, refused_beside
from binfmtd.daemon.state_files.pause_file import PauseFile
from binfmtd.daemon.state_files.state_dir import RUN, Lock
from binfmtd.host.facts import boot_id
from binfmtd.model.pause import SEAL, Pauses


def test_the_reload_of_a_daemon_that_can_be_signalled(tmp_path: Path) -> None:
    """If the daemon runs in this pid namespace, the command in the message names its state directory."""
    lock = Lock(str(tmp_path), RUN)
    try:
        said = refused_beside(os.getpid(), str(tmp_path), more_architectures(["arm64", "s390x"]))
    finally:
        lock.release()
    assert said.endswith(
        f': add "arm64", "s390x" to `architectures` in its config, then run `binfmtd reload --state-dir {tmp_path}`'
    )


def test_the_reload_of_a_daemon_in_another_container(tmp_path: Path) -> None:
    """From another pid namespace `binfmtd reload` cannot signal the daemon: the message names its container."""
    said = refused_beside(os.getpid(), str(tmp_path), more_architectures(["arm64"]))
    assert said.endswith("then run `binfmtd reload` in the daemon's container")


def test_a_daemon_whose_repairs_are_paused(tmp_path: Path) -> None:
    """While repairs are paused the message names the command that ends the pause; an open seal stops no repair."""
    file = PauseFile(str(tmp_path), boot_id())
    for names, expected in (([], True), (["one"], True), ([SEAL], False)):
        assert file.write(Pauses().with_(names, float("inf")))
        said = refused_beside(os.getpid(), str(tmp_path), "change one")
        assert (
            f"paused its repairs. Run `binfmtd resume --state-dir {tmp_path}`; or change one in" in said
        ) is expected
