"""``binfmtd pause`` and ``resume``: the daemon does not undo an administrator's maintenance."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from support.cli import BINFMTD, Cli, run, unprivileged_python
from support.daemon import StartDaemon
from support.instance import Instance
from support.waiting import wait_until

from binfmtd.model.stand_in import stand_in_name

pytestmark = pytest.mark.usefixtures("_cli_of_daemon")
CONFIG = """
architectures = ["arm64"]
unmanaged = "remove"
[emulators]
paths = ["/usr/bin/true"]
[handlers.one]
magic = '\\x00one'
interpreter = "/usr/bin/true"
flags = "F"
"""


def settled(instance: Instance, *names: str) -> None:
    wait_until(lambda: sorted(instance.names()) == sorted(names), what=f"{names} and nothing else")


def state(cli: Cli, name: str) -> str:
    return next(str(row["state"]) for row in cli("status", "--json").json["handlers"] if row["name"] == name)


def test_one_entry(instance: Instance, start_daemon: StartDaemon, cli: Cli) -> None:
    """A paused entry is left as an administrator makes it, the rest is repaired; `resume` repairs it at once."""
    daemon = start_daemon(CONFIG)
    result = cli("pause", "arm64")
    assert (result.status, result.stdout, result.stderr) == (0, "paused until `binfmtd resume`: qemu-aarch64\n", "")
    instance.remove("qemu-aarch64")
    instance.remove("one")
    settled(instance, "one")
    daemon.wait_status(lambda status: status["state"] == "paused", "state paused")
    assert (state(cli, "qemu-aarch64"), state(cli, "one")) == ("paused", "registered")
    instance.register(b":qemu-aarch64:M::mine::/usr/bin/false:")
    instance.remove("one")
    settled(instance, "one", "qemu-aarch64")
    assert "interpreter /usr/bin/false" in instance.read("qemu-aarch64")
    assert cli("status", "--check").status == 3
    assert "\npaused:    qemu-aarch64 until `binfmtd resume`\n" in cli("status").stdout
    assert cli("resume", "qemu-aarch64").stdout == "resumed: qemu-aarch64\n"
    wait_until(lambda: "interpreter /usr/bin/true" in instance.read("qemu-aarch64"), what="ours again")
    daemon.wait_converged()
    assert (len(daemon.logs("pause_started")), len(daemon.logs("pause_ended"))) == (1, 1)


@pytest.mark.parametrize("name", ["arm64", "aarch64", "linux/arm64", "qemu-aarch64"])
def test_twice(start_daemon: StartDaemon, cli: Cli, name: str) -> None:
    """Under each of its names, a second pause has the same effect as one, and a second resume reports that none was."""
    daemon = start_daemon(CONFIG)
    for _ in range(2):
        result = cli("pause", name)
        assert (result.status, result.stdout) == (0, "paused until `binfmtd resume`: qemu-aarch64\n")
    assert [row["name"] for row in daemon.status()["paused"]] == ["qemu-aarch64"]
    for said in ("resumed: qemu-aarch64\n", "not paused: qemu-aarch64\n"):
        result = cli("resume", name)
        assert (result.status, result.stdout, result.stderr) == (0, said, "")
    cli("pause", "one")
    assert cli("resume", name, "one").stdout == "resumed: one\nnot paused: qemu-aarch64\n"
    assert cli("resume").stdout == "nothing was paused\n"


def test_what_is_not_registered_now(instance: Instance, start_daemon: StartDaemon, cli: Cli) -> None:
    """An architecture without emulator, a handler that waits, and any name while nothing is mounted can be paused."""
    daemon = start_daemon(
        "[emulators]\npaths = ['/nowhere/{name}']\n[handlers.one]\nmagic = '\\x00one'\ninterpreter = '/no'\n"
    )
    result = cli("pause", "riscv64", "one")
    assert result.stdout == "paused until `binfmtd resume`: qemu-riscv64, one\n"
    assert result.message == "no handler and no entry has this name at the moment: qemu-riscv64"
    instance.shell(f"umount -l {instance.mount_point}", check=True)  # a pass may have it open
    daemon.wait_status(lambda status: status["mount"] is None, "no mount")
    assert cli("pause", "one", "mine").status == 0
    assert [row["name"] for row in daemon.status()["paused"]] == ["mine", "one", "qemu-riscv64"]
    assert cli("resume", "arm64").stdout == "not paused: qemu-aarch64\n"
    assert cli("resume", "mine").stdout == "resumed: mine\n"


def test_a_bare_number_means_seconds(start_daemon: StartDaemon, cli: Cli) -> None:
    """A number without a unit means seconds, as with sleep and timeout."""
    daemon = start_daemon(CONFIG)
    assert cli("pause", "one", "--for", "1").stdout == "paused for 1s: one\n"
    daemon.wait_for_log("pause_ended", entry="one")


def test_everything(instance: Instance, start_daemon: StartDaemon, cli: Cli) -> None:
    """While everything is paused, a flush, a switch-off and an undeclared entry stay, also with a restarted daemon."""
    daemon = start_daemon(CONFIG)
    assert cli("pause").stdout == "paused until `binfmtd resume`: everything\n"
    instance.remove("status")
    instance.write("status", b"0")
    instance.register(b":other:M::other::/usr/bin/true:")
    daemon.kill()
    daemon = start_daemon(CONFIG)
    assert instance.names() == ["other"]
    assert instance.read("status").startswith("disabled")
    assert daemon.status()["state"] == "paused"
    assert cli("resume").status == 0
    settled(instance, "one", "qemu-aarch64")
    assert instance.read("status").startswith("enabled")
    daemon.wait_converged()


def test_it_ends_by_itself(instance: Instance, start_daemon: StartDaemon, cli: Cli) -> None:
    """After the given time everything is repaired, and the end of the pause is logged."""
    daemon = start_daemon(CONFIG)
    assert cli("pause", "one", "--for", "700ms").status == 0
    instance.remove("one")
    daemon.wait_for_log("pause_ended", entry="one")
    settled(instance, "one", "qemu-aarch64")
    assert daemon.wait_converged()["paused"] == []


def test_what_is_open_is_settled_first(instance: Instance, start_daemon: StartDaemon, cli: Cli) -> None:
    """No stand-in serves while everything is paused; `resume` registers the stand-ins again."""
    daemon = start_daemon('settle = "1s"\n' + CONFIG)
    instance.remove("one")
    daemon.wait_status(lambda status: status["state"] == "drifting", "state drifting")
    assert cli("pause").status == 0
    wait_until(lambda: sorted(instance.all_names()) == ["one", "qemu-aarch64"], what="the proper entries alone")
    assert cli("resume").status == 0
    wait_until(lambda: {stand_in_name("one"), stand_in_name("qemu-aarch64")} < set(instance.all_names()))


def test_a_pause_during_contention(instance: Instance, start_daemon: StartDaemon, cli: Cli) -> None:
    """A pause during contention, a common reason for one, first settles the entry, and leaves no stand-in of it."""
    daemon = start_daemon(CONFIG)
    while not daemon.logs("contention_started"):
        wait_until(lambda: "one" in instance.names(), what="one more repair")
        instance.remove("one")
    assert stand_in_name("one") in instance.all_names(), "it serves meanwhile"
    assert cli("pause", "one").status == 0
    settled(instance, "one", "qemu-aarch64")
    assert stand_in_name("one") not in instance.all_names()
    assert stand_in_name("qemu-aarch64") in instance.all_names()


def test_what_belongs_below_it_waits(instance: Instance, start_daemon: StartDaemon, cli: Cli) -> None:
    """A handler that belongs below a paused one waits, as the status shows; `resume` restores the order."""
    daemon = start_daemon(CONFIG + "[handlers.above]\nmagic = '\\x00onetwo'\ninterpreter = '/usr/bin/false'\n")
    assert cli("pause", "above").status == 0
    instance.remove("one")
    instance.remove("qemu-aarch64")
    settled(instance, "above", "qemu-aarch64")
    status = daemon.wait_status(lambda status: status["state"] == "paused", "state paused")
    (row,) = (row for row in status["handlers"] if row["name"] == "one")
    assert (row["state"], row["reason"]) == ("waiting", "it belongs below above, which is paused")
    assert cli("resume").status == 0
    wait_until(lambda: [n for n in instance.names() if n != "qemu-aarch64"] == ["above", "one"], what="the right order")
    daemon.wait_converged()


def test_what_stops_every_exec_is_disabled_all_the_same(
    instance: Instance, start_daemon: StartDaemon, cli: Cli
) -> None:
    """An entry that stops every exec is disabled during a pause as well, since otherwise no pause could be ended."""
    start_daemon(CONFIG)
    assert cli("pause").status == 0
    instance.register(rb":brick:M::\x7fELF::/usr/bin/true:")
    wait_until(lambda: instance.read("brick").startswith("disabled"), what="disabled")


def test_what_stops_every_exec_under_a_name_of_ours(instance: Instance, start_daemon: StartDaemon, cli: Cli) -> None:
    """During a pause such an entry is only disabled, and stays; `resume` registers the handler again in its place."""
    daemon = start_daemon(CONFIG)
    before = instance.read("one")
    assert cli("pause").status == 0
    instance.remove("one")
    instance.register(rb":one:M::\x7fELF::/usr/bin/true:")
    there = instance.inode("one")
    wait_until(lambda: instance.read("one").startswith("disabled"), what="disabled")
    daemon.reload()
    assert instance.inode("one") == there, "a pass during the pause leaves it"
    assert cli("resume").status == 0
    wait_until(lambda: instance.read("one") == before, what="the handler's own entry")
    daemon.wait_converged()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["arm46"], "'arm46' is neither an entry nor an architecture here"),
        (["one", "--for", "ten"], "--for: 'ten' is not a duration"),
        (
            ["one", "--for", "-5"],
            "--for: '-5' is not a duration: write whole numbers with units (h, m, s, ms), like 10m; a number without",
        ),
        (["one", "--for", "0"], "--for 0 would pause nothing: give a longer time, or leave it out"),
        (["one", "--for", "87600h1ms"], "--for: '87600h1ms' is too long: 87600h at most, or leave it out"),
    ],
)
def test_what_is_refused(start_daemon: StartDaemon, cli: Cli, arguments: list[str], says: str) -> None:
    """An unknown name or an invalid duration gives status 2, and nothing is paused."""
    daemon = start_daemon(CONFIG)
    result = cli("pause", *arguments)
    assert (result.status, result.stdout) == (2, "")
    assert result.message.startswith(says)
    assert daemon.status()["paused"] == []


def test_one_of_everything_cannot_be_resumed(start_daemon: StartDaemon, cli: Cli) -> None:
    """While everything is paused, a single entry cannot be resumed: that would be another pause than the one made."""
    start_daemon(CONFIG)
    cli("pause")
    result = cli("resume", "one")
    assert (result.status, result.message) == (
        2,
        "everything is paused: run `binfmtd resume` without a name, which ends all pauses",
    )


def test_without_a_daemon(start_daemon: StartDaemon, cli: Cli, instance: Instance) -> None:
    """Without a daemon a message announces that the next daemon will apply the pause, and it does."""
    start_daemon(CONFIG).terminate()
    result = cli("pause", "one")
    assert result.status == 0
    assert result.message == (
        f"no daemon runs with the state directory {cli.state_directory}: the change takes effect when one starts; "
        "for another daemon, name its own with --state-dir"
    )
    instance.remove("one")
    daemon = start_daemon(CONFIG)
    assert daemon.status()["state"] == "paused"
    assert instance.names() == ["qemu-aarch64"]


def test_before_a_daemon_has_run(start_daemon: StartDaemon, cli: Cli, instance: Instance) -> None:
    """A name is an architecture or a handler of the config; a message says what it was not compared with."""
    result = cli("pause", "arm64", "one", config=CONFIG)
    assert (result.status, result.stdout) == (0, "paused until `binfmtd resume`: qemu-aarch64, one\n")
    compared, waits = result.messages
    assert compared == (
        f"no daemon has run with the state directory {cli.state_directory}: the names were compared with the config "
        f"{cli.config} alone, not with the daemon's own config and not with entries of other programs"
    )
    assert "the change takes effect when one starts" in waits
    assert cli("resume", "one", config="invalid").stdout == "resumed: one\n"
    daemon = start_daemon(CONFIG)
    assert [row["name"] for row in daemon.status()["paused"]] == ["qemu-aarch64"]
    assert instance.names() == ["one"]


def test_an_absent_handler_before_a_daemon_has_run(cli: Cli) -> None:
    """An architecture that the config leaves out is paused, and reported; any other name is refused."""
    result = cli("pause", "s390x", config=CONFIG)
    assert (result.status, result.stdout) == (0, "paused until `binfmtd resume`: qemu-s390x\n")
    assert "no handler of this config has this name: qemu-s390x" in result.messages
    for name, hint in (("oen", "did you mean one?"), ("theirs", "or leave the name out")):
        result = cli("pause", name, config=CONFIG)
        assert (result.status, result.stdout) == (2, "")
        assert result.message.startswith(
            f"{name!r} is neither a handler of the config {cli.config} nor an architecture"
        )
        assert result.message.endswith(hint)
    assert cli("pause", "one", config="invalid").status == 78


def test_a_daemon_that_does_not_answer(start_daemon: StartDaemon, cli: Cli) -> None:
    """A timed pause that ends before the daemon has applied it is a failure; a name given twice is one pause."""
    daemon = start_daemon(CONFIG)
    with daemon.stopped():
        result = cli("pause", "arm64", "qemu-aarch64", "--for", "1500ms")
    assert (result.status, result.stdout) == (1, "paused for 1500ms: qemu-aarch64\n")
    assert result.message == "the pause has ended, and the daemon has not applied it: see `binfmtd status`"


def test_as_another_user(open_directory: Path, start_daemon: StartDaemon) -> None:
    """A user who may not write to root's state directory gets that error, and no advice about disk space."""
    if os.geteuid() != 0:
        pytest.skip("takes root: another user has to own the state directory")
    start_daemon(CONFIG, ("--state-dir", str(open_directory)))
    pause = [*unprivileged_python(), "-m", "binfmtd", "pause", "--state-dir", str(open_directory)]
    result = run(pause, cwd="/")
    assert (result.status, result.stdout) == (1, "")
    assert result.message == f"{open_directory}/paused.lock: Permission denied: run this as root"


def test_many_at_once(instance: Instance, start_daemon: StartDaemon) -> None:
    """Of many pauses or resumes at once, none is lost."""
    names = [f"x{number:02}" for number in range(12)]
    handlers = "".join(f"[handlers.{n}]\nmagic = '\\x00{n}'\ninterpreter = '/usr/bin/true'\n" for n in names)
    daemon = start_daemon("architectures = []\n" + handlers)
    for command, left in (("pause", names), ("resume", [])):
        state = ["--state-dir", str(daemon.state_directory)]
        all_of_them = [instance.popen([*BINFMTD, command, name, *state], stdout=subprocess.DEVNULL) for name in names]
        assert [each.wait(60) for each in all_of_them] == [0] * len(names)
        assert [row["name"] for row in daemon.status()["paused"]] == left
    assert {path.name for path in daemon.state_directory.iterdir() if "lock" in path.name} == {"lock"}


def test_a_damaged_file(instance: Instance, start_daemon: StartDaemon, cli: Cli) -> None:
    """A damaged file ends no pause: it is logged, and entries stay paused until the file is written again."""
    daemon = start_daemon(CONFIG)
    assert cli("pause", "one").status == 0
    (daemon.state_directory / "paused.json").write_text("{")
    assert "paused.json" in daemon.wait_for_log("pauses_unread")["reason"]
    instance.remove("one")
    instance.remove("qemu-aarch64")
    settled(instance, "qemu-aarch64")
    status = daemon.wait_status(lambda status: status["problem"])
    assert (status["state"], [row["name"] for row in status["paused"]]) == ("degraded", ["one"])
    for command in ("pause", "resume"):
        refused = cli(command, "qemu-aarch64")
        assert (refused.status, refused.stdout) == (1, "")
        assert "run `binfmtd resume` without a name, which writes it anew and ends all pauses" in refused.message
    assert cli("resume").status == 0
    settled(instance, "one", "qemu-aarch64")
    assert daemon.wait_converged()["problem"] is None
    assert len(daemon.logs("pauses_unread")) == 1


def test_with_a_damaged_status(start_daemon: StartDaemon, cli: Cli) -> None:
    """A damaged status is one error, and nothing is paused."""
    daemon = start_daemon(CONFIG)
    daemon.terminate()
    status = daemon.status() | {"handlers": 5}
    (daemon.state_directory / "status.json").write_text(json.dumps(status))
    result = cli("pause", "one")
    assert result.status != 0
    assert "status.json is damaged" in result.message
    assert not (daemon.state_directory / "paused.json").exists()
