"""`doctor` reports other managers of binfmt_misc, emulators, config and daemon; and the order of its page."""

import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from support.binfmt_d import put_binfmt_d
from support.cli import Result, run
from support.daemon import Daemon
from support.doctor import ONE, Doctor, StartDaemon
from support.instance import Instance
from support.programs import FOREIGN, install

from binfmtd.files.environment import in_container, shares_first_processes
from binfmtd.model.match import Extension

# Other managers


def test_systemd_binfmt(doctor: Doctor, tmp_path: Path) -> None:
    """The rules of systemd-binfmt are counted; an invalid line is a warning, and the remedy comments it out."""
    directory = put_binfmt_d(doctor.instance, tmp_path / "tree")["/etc/binfmt.d"]
    file = directory / "some.conf"
    file.write_text("# rules\n:one:E::one::/usr/bin/true:\nnonsense\n")
    assert "registers 1 rule of /etc/binfmt.d/some.conf" in doctor.found("other_managers", "systemd_binfmt")["text"]
    found = doctor.found("other_managers", "binfmt_d")
    assert found["level"] == "warning"
    assert found["text"].startswith("/etc/binfmt.d/some.conf:3: ")
    doctor.type(found["remedy"])
    assert doctor.find("other_managers", "binfmt_d") is None
    assert file.read_text() == "# rules\n:one:E::one::/usr/bin/true:\n#nonsense\n"


def test_update_binfmts(doctor: Doctor, tmp_path: Path, static: Path) -> None:
    """The formats of update-binfmts are counted; one that the config declares as well is a warning."""
    (tmp_path / "lib" / "binfmts").mkdir(parents=True)
    # Not an overlay: where Docker has run, the kernel does not accept /var/lib as its lower directory.
    there = "mount -t tmpfs tmpfs /var/lib && mkdir /var/lib/binfmts"
    doctor.type(f"{there} && mount --bind {tmp_path}/lib/binfmts /var/lib/binfmts")
    (tmp_path / "lib" / "binfmts" / "jar").write_text("")
    config = ONE.format(static)
    assert doctor.found("other_managers", "update_binfmts", config=config)["text"] == "update-binfmts manages jar"
    (tmp_path / "lib" / "binfmts" / "one").write_text("")
    found = doctor.found("other_managers", "update_binfmts", config=config)
    assert found["level"] == "warning"
    assert found["remedy"] == "for f in one; do update-binfmts --disable $f; done"


def test_wsl(doctor: Doctor) -> None:
    """WSL is recognised by its entry."""
    assert doctor.find("other_managers", "wsl") is None
    doctor.instance.register(b":WSLInterop:M::MZ::/init:P")
    assert doctor.found("other_managers", "wsl")["level"] == "ok"


def test_another_binfmtd(doctor: Doctor, start_daemon: StartDaemon) -> None:
    """A second daemon on the same instance is a warning with its process id; the remedy ends that daemon."""
    daemon = start_daemon("architectures = []")
    found = doctor.found("other_managers", "binfmtd")
    assert found["level"] == "warning"
    assert found["remedy"] == f"kill {daemon.pid}"
    doctor.type(found["remedy"])
    daemon.wait_exit()
    assert doctor.find("other_managers", "binfmtd") is None


def test_a_daemon_in_a_container(kept: tuple[Doctor, Daemon]) -> None:
    """The daemon of this state directory is no other one, also if its lock has the id of another pid namespace."""
    doctor, daemon = kept
    (daemon.state_directory / "lock").write_text("1\nrun\n")
    assert doctor.find("other_managers", "binfmtd") is None
    assert doctor.found("daemon", "runs")["text"].startswith("pid 1, converged, ")


def test_a_daemon_elsewhere(doctor: Doctor, make_instance: Callable[[], Instance], tmp_path: Path) -> None:
    """A daemon of another instance is not reported."""
    daemon = Daemon(make_instance(), tmp_path / "elsewhere", "architectures = []")
    try:
        daemon.wait_ready()
        assert doctor.find("other_managers", "binfmtd") is None
    finally:
        daemon.close()


def test_left_stand_ins(doctor: Doctor, static: Path) -> None:
    """A stand-in that an ended daemon left is a warning, and the remedy removes it."""
    doctor.instance.add(".binfmtd~other", Extension("other"), static)
    doctor.instance.add(".binfmtd~one", Extension("one"), static)
    config = ONE.format(static)
    found = doctor.found("other_managers", "stand_ins", config=config)
    assert found["level"] == "warning"
    assert found["text"].endswith(": .binfmtd~other"), "that of a declared handler serves"
    doctor.type(found["remedy"])
    assert doctor.find("other_managers", "stand_ins", config=config) is None


# Emulators


def test_a_broken_emulator(doctor: Doctor, tmp_path: Path) -> None:
    """An emulator that fails to print its version is a failure."""
    broken = install(tmp_path / "qemu-broken", b"#!/bin/sh\nexit 3\n")
    doctor.instance.add("one", Extension("one"), broken)
    found = doctor.found("emulators", "broken", config="architectures = []")
    assert found["level"] == "failure"
    assert found["text"] == f"{broken}: it exited with status 3 and printed no version"


def test_emulators(doctor: Doctor, emulator: Path, tmp_path: Path) -> None:
    """Each emulator's version is shown and missing ones are named; no emulator at all is a warning."""
    said = run([str(emulator), "--version"]).stdout.split()[2]
    (tmp_path / "bin").mkdir()
    config = f"architectures = []\n[emulators]\npaths = ['{tmp_path}/bin/qemu-{{name}}']\n"
    found = doctor.found("emulators", "missing", config=config)
    assert found["level"] == "warning"
    assert found["text"].endswith("put the emulator there, or correct [emulators] paths"), "of no package"
    (tmp_path / "bin" / f"qemu-{FOREIGN}").symlink_to(emulator)
    found = doctor.found("emulators", "version", config=config)
    assert found["text"] == f"QEMU {said}: {tmp_path}/bin/qemu-{FOREIGN}"
    found = doctor.found("emulators", "missing", config=config)
    assert found["level"] == "ok"
    assert " alpha " in found["text"]
    assert f" {FOREIGN} " not in found["text"].partition(";")[0]


# Config


def test_bad_config(doctor: Doctor) -> None:
    """An invalid config is a failure with the message of `check`; the remedy succeeds once the config is corrected."""
    bad = "architectures = ['amr64']"
    found = doctor.found("config", "valid", config=bad)
    assert found["level"] == "failure"
    assert doctor("check", config=bad).message == found["text"]
    doctor.config.write_text("architectures = ['arm64']")
    doctor.type(found["remedy"])


def test_architectures_of_the_environment(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    """$BINFMTD_ARCH counts as it does for a daemon; an unknown architecture in it is a failure like a bad config."""
    config = "architectures = ['arm64']"
    monkeypatch.setenv("BINFMTD_ARCH", "none")
    assert ": 0 handlers for this host" in doctor.found("config", "valid", config=config)["text"]
    monkeypatch.setenv("BINFMTD_ARCH", "amr64")
    found = doctor.found("config", "valid", config=config)
    assert (found["level"], found["text"].partition(":")[0]) == ("failure", "$BINFMTD_ARCH")
    assert found["text"].startswith(doctor("check", config=config).message)


def test_architectures_of_the_daemon(
    doctor: Doctor, start_daemon: StartDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a running daemon its architectures count, and not those of this process's environment."""
    daemon = start_daemon("architectures = ['arm64']", ("--arch", "none"))
    doctor.state_directory = daemon.state_directory
    monkeypatch.setenv("BINFMTD_ARCH", "amr64")
    assert ": 0 handlers for this host" in doctor.found("config", "valid")["text"]


def test_refused_and_waiting(doctor: Doctor, static: Path) -> None:
    """A handler that a guard refuses is a failure; one without an interpreter is a warning."""
    static.chmod(0o777)
    config = ONE.format(static) + "[handlers.late]\nextension = 'late'\ninterpreter = '/nowhere/late'\n"
    found = doctor.found("config", "refused", config=config)
    assert (found["level"], found["text"].partition(":")[0]) == ("failure", "one")
    doctor.type(found["remedy"])
    assert doctor.find("config", "refused", config=config) is None
    found = doctor.found("config", "waiting", config=config)
    assert (found["level"], found["text"].partition(":")[0]) == ("warning", "late")


def test_a_file_without_its_directory(doctor: Doctor, static: Path, tmp_path: Path) -> None:
    """A file that the daemon cannot write, because its directory does not exist, is a warning."""
    config = f"labels.file = '{tmp_path}/features/binfmtd'\n{ONE.format(static)}"
    found = doctor.found("config", "warning", config=config)
    text = f"labels.file: the directory of {tmp_path}/features/binfmtd does not exist: the daemon writes no such file"
    assert (found["level"], found["text"]) == ("warning", text)
    (tmp_path / "features").mkdir()
    assert doctor.find("config", "warning", config=config) is None


# Daemon


def test_no_daemon(doctor: Doctor) -> None:
    """A host where no daemon has ever run is a warning; in a container, where none can be seen, it is not seen."""
    if in_container() and not shares_first_processes():
        assert [each["text"] for each in doctor.unseen() if each["section"] == "daemon"] != []
        return
    found = doctor.found("daemon", "runs")
    assert (found["level"], found["remedy"]) == ("warning", "binfmtd run")


def test_dead_daemon(kept: tuple[Doctor, Daemon]) -> None:
    """A daemon that ended and left its status file is a failure."""
    doctor, daemon = kept
    assert doctor.found("daemon", "runs")["level"] == "ok"
    daemon.kill()
    found = doctor.found("daemon", "runs", "--config", str(daemon.config))
    assert found["level"] == "failure"
    assert found["remedy"] == shlex.join(["binfmtd", "run", "--config", str(daemon.config)])


def test_degraded_daemon(kept: tuple[Doctor, Daemon], static: Path) -> None:
    """A daemon that refuses a handler is a failure, and the remedy ends it."""
    doctor, daemon = kept
    static.chmod(0o777)
    daemon.wait_status(lambda status: status["state"] == "degraded")
    found = doctor.found("daemon", "refused")
    assert found["level"] == "failure"
    doctor.type(found["remedy"])
    daemon.wait_converged()
    assert doctor.find("daemon", "refused") is None


def test_a_daemon_that_cannot_write(kept: tuple[Doctor, Daemon]) -> None:
    """A daemon whose mount has become read-only is a failure, and the remedy makes it writable."""
    doctor, daemon = kept
    doctor.type(f"mount -o remount,bind,ro {doctor.instance.mount_point}")
    daemon.wait_status(lambda status: status["problem"])
    found = doctor.found("daemon", "problem")
    assert found["level"] == "failure"
    doctor.type(found["remedy"])
    daemon.wait_converged()
    assert doctor.find("daemon", "problem") is None


def test_a_daemon_with_an_older_config(kept: tuple[Doctor, Daemon]) -> None:
    """A rejected reload is two failures: the config is invalid, and the daemon still uses the older one."""
    doctor, daemon = kept
    daemon.config.write_text("nonsense")
    daemon.reload()
    daemon.wait_for_log("config_rejected")
    daemon.wait_status(lambda status: status["config"]["error"])
    assert doctor.found("config", "valid")["level"] == "failure"
    assert doctor.found("daemon", "config")["level"] == "failure"
    daemon.config.write_text("architectures = []")
    found = doctor.found("daemon", "config")
    assert found["text"].startswith("the daemon keeps an older config in force, because this one was invalid when it ")
    doctor.type(found["remedy"])
    assert doctor.find("daemon", "config") is None


def test_two_declared_handlers_with_one_match(doctor: Doctor, start_daemon: StartDaemon, static: Path) -> None:
    """Of two declared entries with one match, the remedy leaves the older one out of the config."""
    daemon = start_daemon(
        ONE.format(static) + ONE.format(static).partition("\n")[2].replace("handlers.one", "handlers.two")
    )
    doctor.state_directory = daemon.state_directory
    found = doctor.found("entries", "duplicate")
    assert found["text"].startswith("one: never serves: the newer entry two has the same match")
    assert found["remedy"] == f"in {daemon.config} [handlers.one]: leave this out"


def test_an_interpreter_that_cannot_run(doctor: Doctor, tmp_path: Path) -> None:
    """A handler whose programs fail although its entry is as declared is a warning."""
    text = install(tmp_path / "text", b"no program")
    found = doctor.found("config", "warning", config=ONE.format(text))
    assert (found["level"], found["text"].partition(":")[0]) == ("warning", "one")
    assert "neither an ELF program nor a script" in found["text"]


def test_a_paused_daemon(kept: tuple[Doctor, Daemon]) -> None:
    """A paused daemon is a warning, and the remedy resumes it."""
    doctor, daemon = kept
    assert doctor("pause", "--state-dir", str(daemon.state_directory)).status == 0
    daemon.wait_status(lambda status: status["state"] == "paused")
    found = doctor.found("daemon", "paused")
    assert found["level"] == "warning"
    doctor.type(found["remedy"])
    daemon.wait_converged()
    assert doctor.find("daemon", "paused") is None


# The page


def test_page(doctor: Doctor, static: Path) -> None:
    """The worst finding comes first, a remedy stands below its finding, three of a kind are shown, the sum is last."""
    for name in "abcde":
        doctor.instance.add(name, Extension(name), static, "")
    doctor.instance.add("bad", Extension("bad"), "/nowhere/bad", "")
    result: Result = doctor("doctor", config="architectures = []")
    assert result.status == 1
    first, remedy, *others, last = result.stdout.splitlines()
    assert first.split()[:3] == ["failure", "entries", "bad:"]
    assert remedy.strip().startswith("$ echo -1 >")
    assert sum("no flag F" in line for line in others) == 3
    assert sum("... and 2 more of these" in line for line in others) == 1
    assert last.startswith("1 failure, ")
