"""SIGHUP, SIGTERM, and a config that changes on disk."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from support.daemon import Daemon, StartDaemon
from support.instance import Instance
from support.programs import exits_with, install
from support.waiting import wait_until


def handler(name: str, flags: str = "F", interpreter: str = "/usr/bin/true", more: str = "") -> str:
    """Return one handler's table; its magic is its name."""
    return f'[handlers.{name}]\nmagic = \'\\x00{name}\'\ninterpreter = "{interpreter}"\nflags = "{flags}"\n{more}\n'


def config(*handlers: str, top: str = "") -> str:
    """Return a config of only these handlers."""
    return f"architectures = []\n{top}\n" + "".join(handlers)


def reloaded(daemon: Daemon, text: str, times: int = 1) -> None:
    """Write the config, reload, and wait until it is in force."""
    daemon.config.write_text(text)
    daemon.reload()
    wait_until(lambda: len(daemon.logs("config_reloaded")) == times, what="config_reloaded")
    daemon.wait_status(lambda status: status["config"]["generation"] == times + 1, "the new generation")


def test_touches_only_what_differs(instance: Instance, start_daemon: StartDaemon) -> None:
    """A reload registers new entries, replaces changed ones, removes undeclared ones, and leaves the rest alone."""
    daemon = start_daemon(config(handler("same"), handler("changes"), handler("goes")))
    same, changes = instance.inode("same"), instance.inode("changes")
    reloaded(daemon, config(handler("same"), handler("changes", flags=""), handler("comes")))
    assert sorted(instance.names()) == ["changes", "comes", "same"]
    assert instance.inode("same") == same
    assert instance.inode("changes") != changes
    assert "flags: \n" in instance.read("changes")
    wait_until(lambda: daemon.notifications.count("READY=1") == 2, what="READY=1 after the status")
    notifications = daemon.notifications
    assert "RELOADING=1" in notifications
    assert any(line.startswith("MONOTONIC_USEC=") for line in notifications)
    assert notifications.index("RELOADING=1") < len(notifications) - 1 - notifications[::-1].index("READY=1")


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("architectures = [", "TOML"),
        ("architecturez = []", "architectures"),
        ('architectures = ["aarm64"]', "arm64"),
        ("[handlers.x]\nmagic = 'x'\n", "interpreter"),
    ],
)
def test_invalid_config_leaves_the_old_in_force(
    instance: Instance, start_daemon: StartDaemon, text: str, word: str
) -> None:
    """An invalid config is logged and shown with file and remedy; the previous config stays in force."""
    daemon = start_daemon(config(handler("one")))
    daemon.config.write_text(text)
    daemon.reload()
    reason = daemon.wait_for_log("config_rejected")["reason"]
    assert str(daemon.config) in reason
    assert word in reason
    error = daemon.wait_status(lambda status: status["config"]["error"], "the error in the status")["config"]["error"]
    assert error == reason
    instance.remove("one")
    wait_until(lambda: instance.names() == ["one"], what="a repair under the old config")
    reloaded(daemon, config(handler("two")))
    assert instance.names() == ["two"]
    assert daemon.status()["config"]["error"] is None


LAST_VALID = ("--last-valid",)


def test_a_start_with_the_last_valid_config(instance: Instance, start_daemon: StartDaemon) -> None:
    """With --last-valid a daemon that starts with an invalid config uses the last valid one."""
    daemon = start_daemon(config(handler("one")), LAST_VALID)
    reloaded(daemon, config(handler("two")))
    daemon.kill()
    instance.remove("two")
    again = start_daemon("architectures = [", LAST_VALID)
    assert instance.names() == ["two"]
    status = again.status()
    assert status["state"] == "degraded"
    assert status["problem"].startswith(f"the config is invalid, and the last valid one is in force: {again.config}: ")
    assert again.logs("config_rejected")[0]["reason"] == status["config"]["error"]
    reloaded(again, config(handler("three")))
    again.wait_converged()
    assert instance.names() == ["three"]
    assert again.status()["problem"] is None


def test_the_last_valid_config_only_on_purpose(start_daemon: StartDaemon) -> None:
    """Without the option no config is kept, and an invalid config ends the start with 78."""
    daemon = start_daemon(config(handler("one")))
    daemon.kill()
    assert not (daemon.state_directory / "last-valid.json").exists()
    again = start_daemon("architectures = [", ready=False)
    assert again.wait_exit() == 78


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda path: path.chmod(0o666), "cannot be trusted"),
        (lambda path: path.write_text("[]"), "is damaged"),
        (lambda path: path.write_text('{"schema": 2, "files": []}'), "schema 2 is not 1"),
        (lambda path: path.unlink(), "does not exist"),
    ],
    ids=["writable", "damaged", "another-schema", "missing"],
)
def test_a_last_valid_config_that_cannot_be_used(
    start_daemon: StartDaemon, spoil: Callable[[Path], None], reason: str
) -> None:
    """A last valid config that another user could have written, or a damaged one, is refused: 78 with both reasons."""
    daemon = start_daemon(config(handler("one")), LAST_VALID)
    daemon.kill()
    spoil(daemon.state_directory / "last-valid.json")
    again = start_daemon("architectures = [", LAST_VALID, ready=False)
    assert again.wait_exit() == 78
    assert f"{again.config}: " in again.log_text()
    assert reason in again.log_text()


def test_a_config_that_is_being_written(instance: Instance, start_daemon: StartDaemon) -> None:
    """A SIGHUP between truncating and writing a config does not load the empty file, which would mean "all"."""
    daemon = start_daemon(config(handler("one")))
    with daemon.config.open("w") as file:
        daemon.reload()
        file.flush()
        wait_until(lambda: os.stat(daemon.config).st_size == 0)
        file.write(config(handler("two")))
    daemon.wait_for_log("config_reloaded")
    wait_until(lambda: instance.names() == ["two"], what="only what was written at last")
    assert len(daemon.logs("config_reloaded")) == 1


def test_many_hangups(instance: Instance, start_daemon: StartDaemon) -> None:
    """After a storm of SIGHUPs the last config is in force."""
    daemon = start_daemon(config(handler("one")))
    daemon.config.write_text(config(handler("two")))
    for _ in range(500):
        daemon.reload()
    daemon.wait_for_log("config_reloaded")
    wait_until(lambda: instance.names() == ["two"])
    daemon.wait_converged()


def test_reload_on_change(instance: Instance, start_daemon: StartDaemon) -> None:
    """With reload_on_change a changed file, or a switched link as of a ConfigMap, is loaded without SIGHUP."""
    daemon = start_daemon(config(handler("one"), top="reload_on_change = true"))
    daemon.config.write_text(config(handler("two"), top="reload_on_change = true"))
    wait_until(lambda: instance.names() == ["two"], what="the changed config")
    directory = daemon.config.parent
    for name, which in (("..1", "three"), ("..2", "four")):
        (directory / name).mkdir()
        (directory / name / "c.toml").write_text(config(handler(which), top="reload_on_change = true"))
    (directory / "..data").symlink_to("..1")
    (directory / "link").symlink_to("..data/c.toml")
    os.rename(directory / "link", daemon.config)
    wait_until(lambda: instance.names() == ["three"], what="the config behind the link")
    (directory / "..tmp").symlink_to("..2")
    os.rename(directory / "..tmp", directory / "..data")
    wait_until(lambda: instance.names() == ["four"], what="the config behind the switched link")


@pytest.mark.parametrize("level", ["etc", "etc/binfmtd", "etc/binfmtd/conf.d", "srv", "srv/a", "srv/a/rules"])
def test_reload_on_change_of_a_directory_on_the_way(
    instance: Instance, start_daemon: StartDaemon, tmp_path: Path, level: str
) -> None:
    """A directory above the config, or above an included one, can be exchanged by two renames, at any level.

    A missing directory in between is no other config: nothing is rejected, and entries that both declare stay.
    """
    for tree, name in ((tmp_path, "old"), (tmp_path / "beside", "new")):
        (tree / "etc/binfmtd/conf.d").mkdir(parents=True)
        (tree / "srv/a/rules").mkdir(parents=True)
        top = f"reload_on_change = true\ninclude = ['{tmp_path}/srv/a/rules']"
        (tree / "etc/binfmtd/binfmtd.toml").write_text(config(handler("same"), handler(name), top=top))
        (tree / "etc/binfmtd/conf.d/more.toml").write_text(handler(f"{name}-more"))
        (tree / "srv/a/rules/rules.conf").write_text(f":{name}-rule:M::{name}::/usr/bin/true:\n")
    daemon = start_daemon(options=("--config", str(tmp_path / "etc/binfmtd/binfmtd.toml")))
    assert sorted(instance.names()) == ["old", "old-more", "old-rule", "same"]
    before = instance.inode("same")
    os.rename(tmp_path / level, tmp_path / "away")
    os.rename(tmp_path / "beside" / level, tmp_path / level)
    new = {"etc": {"", "-more"}, "etc/binfmtd": {"", "-more"}, "etc/binfmtd/conf.d": {"-more"}}.get(level, {"-rule"})
    kept = {"", "-more", "-rule"} - new
    wanted = {*(f"new{each}" for each in new), *(f"old{each}" for each in kept), "same"}
    wait_until(lambda: set(instance.names()) == wanted, what="what is declared now")
    daemon.wait_converged()
    assert instance.inode("same") == before
    assert not daemon.logs("config_rejected")
    assert not daemon.logs("config_warning")


def test_conf_d(instance: Instance, start_daemon: StartDaemon) -> None:
    """Files in conf.d beside the config are read at a reload, too."""
    daemon = start_daemon(config(handler("one")))
    (daemon.config.parent / "conf.d").mkdir()
    (daemon.config.parent / "conf.d" / "10-more.toml").write_text(handler("more"))
    reloaded(daemon, config(handler("one")))
    assert sorted(instance.names()) == ["more", "one"]


def test_what_others_are_at_work_on_is_left_to_them(instance: Instance, start_daemon: StartDaemon) -> None:
    """A reload applies its own changes at once; an earlier drift waits until its name is quiet, and is a repair."""
    top = 'settle = "1s"'
    daemon = start_daemon(config(handler("same"), handler("changes"), top=top))
    instance.remove("same")
    daemon.wait_status(lambda status: status["state"] == "drifting", "the drift")
    reloaded(daemon, config(handler("same"), handler("changes", flags=""), top=top))
    assert "flags: \n" in instance.read("changes")
    daemon.wait_for_log("repaired", entry="same")
    daemon.wait_status(lambda status: status["repairs"] == 1, "one repair")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stops(instance: Instance, start_daemon: StartDaemon, number: int) -> None:
    """At SIGTERM and SIGINT the daemon sends STOPPING=1, ends with 0, and leaves the entries."""
    daemon = start_daemon(config(handler("one")))
    daemon.process.send_signal(number)
    assert daemon.wait_exit() == 0
    assert "STOPPING=1" in daemon.notifications
    assert instance.names() == ["one"]


def test_stop_settles_what_is_open(instance: Instance, start_daemon: StartDaemon) -> None:
    """At SIGTERM an entry that only its stand-in serves is registered first."""
    daemon = start_daemon(config(handler("one"), top="settle = '900ms'"))
    instance.remove("one")
    daemon.wait_status(lambda status: status["state"] == "drifting", "state drifting")
    assert daemon.terminate() == 0
    assert instance.all_names() == ["one", ".binfmtd~one"]


def test_on_stop_remove(instance: Instance, start_daemon: StartDaemon) -> None:
    """With on_stop = "remove" all our entries are removed, and no foreign one."""
    instance.register(rb":foreign:M::foreign::/usr/bin/true:")
    daemon = start_daemon(config(handler("one"), handler("two"), top="on_stop = 'remove'"))
    assert daemon.terminate() == 0
    assert instance.all_names() == ["foreign"]


def test_undeclared_after_a_restart(instance: Instance, start_daemon: StartDaemon) -> None:
    """Undeclared entries of an earlier, killed daemon are removed, as the ledger contains them."""
    start_daemon(config(handler("one"), handler("two"))).kill()
    instance.register(rb":foreign:M::foreign::/usr/bin/true:")
    start_daemon(config(handler("two")))
    assert sorted(instance.names()) == ["foreign", "two"]


def test_lost_ledger(instance: Instance, start_daemon: StartDaemon) -> None:
    """Without the ledger, entries as declared are adopted, and undeclared ones count as foreign."""
    first = start_daemon(config(handler("one", flags=""), handler("two")))
    before = instance.inode("one")
    assert first.terminate() == 0
    (first.state_directory / "ledger.json").write_text("{ damaged")
    second = start_daemon(config(handler("one", flags="")))
    assert instance.inode("one") == before
    assert sorted(instance.names()) == ["one", "two"]
    assert [entry["name"] for entry in second.status()["foreign"]] == ["two"]


def test_an_equal_entry_under_a_name_that_we_replaced(instance: Instance, start_daemon: StartDaemon) -> None:
    """An entry is adopted only if it equals the one that we registered under its name within the last ten seconds.

    Here the config has changed meanwhile: the entry equals a handler with ``enabled = false``, which binfmtd never
    registers.  So it is disabled, and it stays when the config no longer declares it.
    """
    disabled = handler("one", interpreter="/usr/bin/false", more="enabled = false")
    daemon = start_daemon(config(handler("one"), handler("two")))
    theirs = replace(instance, daemon, rb":one:M::\x00one::/usr/bin/true:F")
    instance.wait_registered_anew("one", theirs)
    reloaded(daemon, config(disabled, handler("two")))
    theirs = replace(instance, daemon, rb":one:M::\x00one::/usr/bin/false:F")
    wait_until(lambda: instance.read("one").startswith("disabled"), what="a disabled entry")
    reloaded(daemon, config(handler("two")), times=2)
    assert instance.inode("one") == theirs


def test_an_equal_entry_with_an_older_file(instance: Instance, start_daemon: StartDaemon, tmp_path: Path) -> None:
    """An equal entry that was registered before an upgrade of the interpreter is not adopted: it runs the old file.

    The daemon sees both only after the upgrade.
    """
    (tmp_path / "bin").mkdir(mode=0o755)
    path = install(tmp_path / "bin" / "interpreter", exits_with(1))
    program = install(tmp_path / "program", b"\0one")
    daemon = start_daemon(config(handler("one", interpreter=str(path)), top="stand_ins = 'temporary'"))
    equal = b":one:M::\\x00one::" + bytes(path) + b":F"
    theirs = replace(instance, daemon, equal)
    instance.wait_registered_anew("one", theirs)
    theirs = replace(instance, daemon, equal, lambda: install(path, exits_with(2)))
    instance.wait_registered_anew("one", theirs)
    wait_until(
        lambda: instance.names() == ["one"] and instance.run([str(program)]).returncode == 2, what="the new file"
    )


def replace(instance: Instance, daemon: Daemon, line: bytes, then: Callable[[], object] = lambda: None) -> int:
    """Replace entry ``one``, and do more, while the daemon is stopped (SIGSTOP); return the new inode number."""
    daemon.process.send_signal(signal.SIGSTOP)
    instance.remove("one")
    instance.register(line)
    inode = instance.inode("one")
    then()
    daemon.process.send_signal(signal.SIGCONT)
    return inode
