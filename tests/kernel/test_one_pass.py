"""One pass, while another program undoes part of it."""

import os
from pathlib import Path

import pytest
from support.instance import Instance

from binfmtd.cli.context import reconciler
from binfmtd.config.load import load
from binfmtd.files.trust import Trust
from binfmtd.kernel.instance import Instance as Opened
from binfmtd.kernel.mount import Mounted
from binfmtd.kernel.write_gate import WriteGate, WritePermission
from binfmtd.kernel.writer import Writer

CONFIG = "architectures = []\n" + "".join(
    f"[handlers.{name}]\nmagic = '\\x00{name}'\ninterpreter = '/usr/bin/true'\n" for name in ("first", "second")
)


@pytest.mark.parametrize("last", [True, False], ids=["no other pass follows", "another follows"])
def test_what_is_undone_meanwhile(instance: Instance, tmp_path: Path, last: bool) -> None:
    """An undone write is repeated within a pass that is the last, as in `apply`; the daemon leaves it to the next."""
    (tmp_path / "binfmtd.toml").write_text(CONFIG)
    config = load(str(tmp_path / "binfmtd.toml"), trust=Trust.of_this_process())
    undone: list[str] = []

    class Gate(WriteGate):
        def permission(self, _: str) -> WritePermission:
            return WritePermission.IF_UNTOUCHED

        def touched_since_read(self, _: str) -> bool:
            """Remove the other entry once it exists; the pass calls this right before it writes an entry."""
            if not undone and (names := instance.names()):
                undone.extend(names)
                instance.remove(names[0])
            return False

    with Opened(Mounted(str(instance.directory), os.stat(instance.directory).st_dev, read_only=False)) as opened:
        result = reconciler(config, None).reconcile(opened, Writer(opened), gate=Gate(), last=last)
    assert len(undone) == 1
    assert {action.entry for action in result.assessment.plan.actions} == (set() if last else set(undone))
    assert ({"first", "second"} == set(instance.names())) is last
