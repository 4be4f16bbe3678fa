"""Why something drifted: what log, status and history say of it."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.cli import Cli
from support.daemon import Daemon
from support.instance import Instance
from support.waiting import wait_until

StartDaemon = Callable[..., Daemon]
Why = Callable[[Callable[[], object]], dict[str, Any]]

CONFIG = """
architectures = []
[handlers.one]
magic = '\\x00one'
interpreter = "/usr/bin/true"
flags = "F"
[handlers.low]
magic = '\\x00lo'
interpreter = "/usr/bin/true"
[handlers.high]
magic = '\\x00low'
interpreter = "/usr/bin/true"
priority = 1
"""


@pytest.fixture
def why(instance: Instance, start_daemon: StartDaemon) -> Why:
    """Return what does something to the entries, in one step for the daemon, and returns the drift in its log."""
    daemon = start_daemon(CONFIG)

    def found() -> list[dict[str, Any]]:
        return [line for line in daemon.logs() if line["event"] in ("drift_found", "drift_ended")]

    def why(do: Callable[[], object]) -> dict[str, Any]:
        so_far = len(found())
        daemon.process.send_signal(signal.SIGSTOP)
        do()
        daemon.process.send_signal(signal.SIGCONT)
        wait_until(lambda: len(found()) > so_far, what="the drift in the log")
        line = found()[so_far]
        wait_until(lambda: sorted(instance.names()) == ["high", "low", "one"], what="the entries")
        daemon.wait_status(
            lambda status: (
                status["state"] == "converged"
                and any(row["event"] == line["event"] and row["reason"] == line["reason"] for row in status["history"])
            ),
            "the drift in the history",
        )
        return line

    return why


def test_what_somebody_did(instance: Instance, why: Why) -> None:
    """One removed by its name, all of them flushed, one disabled, the instance switched off, one overtaken."""
    line = why(lambda: instance.remove("one"))
    assert (line["entry"], line["reason"]) == ("one", "somebody removed it")
    line = why(lambda: instance.write("status", b"-1"))
    assert (set(line["entries"]), line["reason"]) == ({"one", "low", "high"}, "everything was flushed at once")
    line = why(lambda: instance.write("one", b"0"))
    assert (line["entry"], line["reason"]) == ("one", "somebody disabled it")
    line = why(lambda: instance.write("status", b"0"))
    assert (line["entry"], line["reason"]) == ("status", "somebody wrote 0 to status")


def test_from_what_to_what(instance: Instance, why: Why) -> None:
    """What an entry says instead, in the words of the config, and who writes such entries."""

    def replace() -> None:
        instance.remove("one")
        instance.register(rb":one:M::\x00two::/usr/bin/qemu-arm:CF")

    line = why(replace)
    assert line["drift"] == "changed"
    assert line["reason"] == (
        "interpreter /usr/bin/qemu-arm instead of /usr/bin/true, flags OCF instead of F, magic 0074776f at 0 instead "
        "of magic 006f6e65 at 0 (it looks like linuxkit/binfmt, docker/binfmt or tonistiigi/binfmt)"
    )


def test_history(instance: Instance, start_daemon: StartDaemon, tmp_path: Path) -> None:
    """`status --history` shows drift and repair, and why; `status` the last of it."""
    daemon = start_daemon(CONFIG)
    cli = Cli(instance, tmp_path)
    cli.state_directory = daemon.state_directory
    assert cli("status", "--history").rows == [["AT", "WHAT", "ENTRY", "WHY"]]
    instance.remove("one")
    daemon.wait_status(lambda status: len(status["history"]) == 2, "drift and repair")
    daemon.wait_converged()
    result = cli("status", "--history")
    assert (result.status, result.stderr) == (0, "")
    _, drift, repair = result.rows
    assert drift[1:] == ["drift", "found", "one", "somebody", "removed", "it"]
    assert repair[1:] == ["entry", "registered", "one", "somebody", "removed", "it"]
    assert [row["event"] for row in cli("status", "--history", "--json").json] == ["drift_found", "entry_registered"]
    assert "\ndrift:     one: somebody removed it, 20" in cli("status").stdout
