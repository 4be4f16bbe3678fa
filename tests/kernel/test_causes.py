"""Log, status and history contain the cause of each drift."""

import json
import re
import signal
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from support.binfmt_d import SYSTEMD_BINFMT, needs_systemd_binfmt, put_binfmt_d
from support.cli import Cli
from support.daemon import StartDaemon
from support.instance import Instance
from support.waiting import wait_until

from binfmtd.daemon.reporting.incidents import LONGEST

LONGEST_SECONDS_OF_A_TEST = 100
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
    """Return a function that changes entries while the daemon is stopped, and returns its log line of the repair."""
    daemon = start_daemon(CONFIG)

    def why(do: Callable[[], object]) -> dict[str, Any]:
        so_far = len(daemon.logs("repaired"))
        daemon.process.send_signal(signal.SIGSTOP)
        do()
        daemon.process.send_signal(signal.SIGCONT)
        wait_until(lambda: len(daemon.logs("repaired")) > so_far, what="the repair in the log")
        line = daemon.logs("repaired")[so_far]
        wait_until(lambda: sorted(instance.names()) == ["high", "low", "one"], what="the entries")
        daemon.wait_converged()
        return line

    return why


def cause(line: dict[str, Any]) -> str:
    """Return the summary without the duration."""
    return re.sub(r" (in|after) [0-9.]+ m?s", "", str(line["summary"]))


def test_what_another_process_did(instance: Instance, why: Why) -> None:
    """The summary is right for an entry removed by name, a flush, a disabled entry and a switched-off instance."""
    served = "its stand-in served, registered again after"
    assert why(lambda: instance.remove("one"))["summary"].startswith(f"one removed by another process, {served} ")
    line = why(lambda: instance.write("status", b"-1"))
    assert set(line["entries"]) == {"one", "low", "high"}
    assert cause(line) == "3 entries removed together with all other entries by another process, repaired"
    assert cause(why(lambda: instance.write("one", b"0"))) == "one disabled by another process, repaired"
    assert cause(why(lambda: instance.write("status", b"0"))) == "binfmt_misc switched off by another process, repaired"


def test_from_what_to_what(instance: Instance, why: Why) -> None:
    """The log has the actual and the declared value of what differs, and which program writes such entries."""

    def replace() -> None:
        instance.remove("one")
        instance.register(rb":one:M::\x00two::/usr/bin/qemu-arm:CF")

    line = why(replace)
    assert line["drift"] == "changed"
    assert cause(line) == (
        "one replaced by another process (probably linuxkit/binfmt, docker/binfmt or tonistiigi/binfmt), "
        "its stand-in served, registered again: interpreter is /usr/bin/qemu-arm, should be /usr/bin/true; "
        "flags are OCF, should be F; "
        "magic is 0074776f, should be 006f6e65"
    )


MANY = [f"many{number:02}" for number in range(31)]
MANY_CONFIG = "architectures = []\n" + "".join(
    f"[handlers.{name}]\nmagic = '\\x00{name}'\ninterpreter = '/usr/bin/true'\n" for name in MANY
)


def rules(interpreter: str) -> list[bytes]:
    return [f":{name}:M::\\x00{name}::{interpreter}:".encode() for name in MANY]


def test_a_restart_of_systemd_binfmt_is_one_line(instance: Instance, start_daemon: StartDaemon, tmp_path: Path) -> None:
    """A restart of systemd-binfmt with rules of the same names (two flushes, 31 other entries) is one line."""
    needs_systemd_binfmt()
    directory = put_binfmt_d(instance, tmp_path / "rules")["/usr/lib/binfmt.d"]
    (directory / "many.conf").write_bytes(b"\n".join(rules("/usr/libexec/qemu-binfmt/many-binfmt-P")) + b"\n")
    daemon = start_daemon(MANY_CONFIG)
    began = len(daemon.logs())
    daemon.process.send_signal(signal.SIGSTOP)
    for options in (["--unregister"], []):
        done = instance.run([str(SYSTEMD_BINFMT), *options])
        assert done.returncode == 0, done.stderr
    daemon.process.send_signal(signal.SIGCONT)
    line = daemon.wait_for_log("repaired")
    daemon.wait_converged()
    assert daemon.terminate() == 0
    lines = daemon.logs()[began:]
    assert [each["event"] for each in lines] == ["repaired", "stopped"]
    assert (line["count"], line["entries"], line["drift"]) == (31, MANY[:5], "changed")
    assert "31 entries replaced by another process (probably Debian's qemu-user-binfmt)" in line["summary"]
    assert len(json.dumps(line)) < 500


def test_entries_that_are_replaced_one_after_the_other_are_one_line(
    instance: Instance, start_daemon: StartDaemon
) -> None:
    """Entries replaced one by one, as by update-binfmts, are one line in the log and one row in the history."""
    daemon = start_daemon(MANY_CONFIG)
    began = len(daemon.logs())
    for name, rule in zip(MANY, rules("/usr/bin/false"), strict=True):
        before = instance.inode(name)
        daemon.process.send_signal(signal.SIGSTOP)
        instance.remove(name)
        instance.register(rule)
        daemon.process.send_signal(signal.SIGCONT)
        wait_until(partial(ours_again, instance, name, before), what="the repair")
    assert daemon.wait_converged()["passes"] > 2
    assert daemon.terminate() == 0
    *lines, _ = daemon.logs()[began:]
    assert {line["event"] for line in lines} == {"repaired"}
    assert len(lines) <= 1 + LONGEST_SECONDS_OF_A_TEST // LONGEST
    assert sum(line.get("count", 1) for line in lines) >= len(MANY)
    (row,) = daemon.status()["history"]
    assert (row["event"], row["count"]) == ("repaired", len(MANY))
    assert row["reason"] == "replaced by another process"


def ours_again(instance: Instance, name: str, before: int) -> bool:
    try:
        return instance.inode(name) != before and "/usr/bin/true" in instance.read(name)
    except FileNotFoundError:  # it is being replaced
        return False


def test_contention_of_many_is_one_line(instance: Instance, start_daemon: StartDaemon) -> None:
    """Contention of many entries is one line that names them; the repairs that follow have no lines of their own."""
    daemon = start_daemon(MANY_CONFIG)
    began = len(daemon.logs())
    some = MANY[:10]  # more than half, removed at once, would count as a flush

    def remove_some() -> bool:
        for name in some:
            with suppress(FileNotFoundError):
                instance.remove(name)
        return len(daemon.status()["contended"]) == len(some)

    wait_until(remove_some, 60, "a contention of all of them")
    assert daemon.terminate() == 0
    lines = daemon.logs("contention_started")
    assert sum(line.get("count", 1) for line in lines) == len(some)
    assert len(lines) <= 2  # one at once, and one for those that followed
    assert len(daemon.logs()[began:]) <= 4 + LONGEST_SECONDS_OF_A_TEST // LONGEST


def test_history(instance: Instance, start_daemon: StartDaemon, cli: Cli) -> None:
    """`status --history` has each repair, its cause and its age, `status` the last one; the next daemon continues."""
    daemon = start_daemon(CONFIG)
    cli.state_directory = daemon.state_directory
    assert cli("status", "--history").stdout == "nothing has drifted\n"
    for _ in range(2):
        repairs = daemon.status()["repairs"]
        instance.remove("one")
        daemon.wait_status(lambda status: status["repairs"] > repairs, "a repair")  # noqa: B023  waited for
        daemon.wait_converged()
    result = cli("status", "--history")
    assert (result.status, result.stderr) == (0, "")
    assert "one removed by another process" in result.stdout
    assert "one removed by another process" in cli("status").stdout
    daemon.kill()
    again = start_daemon(CONFIG)
    (row,) = cli("status", "--history", "--json").json
    assert (row["event"], row["entry"], row["times"]) == ("repaired", "one", 2)
    instance.remove("one")
    again.wait_status(lambda status: [row["times"] for row in status["history"]] == [3], "a third time")


def test_handlers_that_cannot_be_had_are_one_line(instance: Instance, start_daemon: StartDaemon) -> None:
    """All handlers without an interpreter are one line."""
    daemon = start_daemon(MANY_CONFIG.replace("/usr/bin/true", "/nowhere/true"))
    (line,) = daemon.logs("handler_waiting")
    assert (line["count"], line["entries"]) == (len(MANY), MANY[:5])
    assert "many00: no executable file at /nowhere/true; and 30 more" in line["reason"]
    assert instance.names() == []
