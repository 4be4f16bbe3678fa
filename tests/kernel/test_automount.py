"""systemd's automount of binfmt_misc: opening the directory waits for systemd, and the daemon does not wait with it."""

from collections.abc import Iterator

import pytest
from support.automount import Automount, AutomountError
from support.daemon import CONFIG, StartDaemon, pause_and_resume
from support.instance import MOUNT_POINT, Instance
from support.waiting import wait_until

pytestmark = pytest.mark.usefixtures("private_instances")


@pytest.fixture
def automount(instance: Instance) -> Iterator[Automount]:
    """Yield an automount beneath the instance's binfmt_misc; skip where there can be none."""
    try:
        made = Automount(instance)
    except AutomountError as error:
        pytest.skip(str(error))
    with made:
        yield made


@pytest.mark.parametrize(
    ("options", "removed", "arguments"),
    [
        ("", "status", ()),
        ("", "one", ()),
        ("", None, ()),
        ("", None, ("--mount", f"{MOUNT_POINT}/")),
        ("stand_ins = 'permanent'\n", "status", ()),
        ("sealed = true\n", None, ()),
    ],
    ids=["after a flush", "after a removal", "quiet", "with a slash", "permanent stand-ins", "sealed"],
)
def test_the_loop_does_not_wait(
    instance: Instance,
    automount: Automount,
    start_daemon: StartDaemon,
    options: str,
    removed: str | None,
    arguments: tuple[str, ...],
) -> None:
    """While the automount does not answer after an unmount, the daemon applies a pause; with its answer it repairs."""
    daemon = start_daemon(options + CONFIG, arguments)
    if removed is not None:
        instance.remove(removed)  # so the daemon is at work
    automount.unmount()
    automount.wait()
    pause_and_resume(instance, daemon)
    daemon.wait_status(lambda status: status["state"] == "degraded" and "automount" in status["problem"])
    automount.answer()
    wait_until(lambda: "one" in instance.names(), what="an entry in the new instance")
    daemon.wait_converged()
