"""The service under Debian's OpenRC: its life, a reload, a crash and a removed entry."""

from collections.abc import Iterator

import pytest
from support.booted import CONFIG, ENTRY, MOUNT_POINT
from support.openrc import OpenrcMachine
from support.required import require
from support.waiting import wait_until

pytestmark = pytest.mark.packages

NEEDED = ("systemd-nspawn", "mmdebstrap", "make")
ANSWER = 51
ONE_HANDLER = 'architectures = ["riscv64"]\n'
DEADLINE_SECONDS = 30
STOPPED = 3  # rc-service's exit status


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenrcMachine]:
    """Yield a booted machine, whose default runlevel has the service."""
    require("test-packages", NEEDED, "systemd-nspawn starts a machine")
    with OpenrcMachine(tmp_path_factory.mktemp("openrc"), ONE_HANDLER, ANSWER) as booted:
        yield booted


@pytest.fixture
def service(machine: OpenrcMachine) -> OpenrcMachine:
    """Return the machine with the service just started, and with one handler."""
    machine.write(CONFIG, ONE_HANDLER)
    machine.service("stop")
    started = machine.service("start")
    assert started.status == 0, (started.stdout, started.stderr, machine.log())
    return machine


def test_starts_at_boot(machine: OpenrcMachine) -> None:
    """The default runlevel starts the service, after binfmt_misc is mounted; a foreign program runs."""
    assert machine.run("cat", "/run/openrc/softlevel").stdout.strip() == "default"
    assert machine.service("status").status == 0
    assert ENTRY in machine.entries()
    assert machine.answer() == ANSWER


def test_start(service: OpenrcMachine) -> None:
    """When the start returns the handler is registered; the state directory is root's, and the log has the start."""
    assert ENTRY in service.entries()
    assert service.answer() == ANSWER
    assert "started" in service.service("status").stdout
    assert service.run("stat", "--format=%U:%a", "/run/binfmtd").stdout == "root:755\n"
    assert service.run("stat", "--format=%U:%a", "/var/log/binfmtd.log").stdout == "root:600\n"
    assert "pass_finished" in service.log()


def test_native_architectures_are_recorded(service: OpenrcMachine) -> None:
    """Before the daemon starts, the service finds out which architectures run natively."""
    assert '"native"' in service.run("cat", "/run/binfmtd/native.json").stdout


def test_repairs(service: OpenrcMachine) -> None:
    """An entry that another program removes is registered again."""
    repaired = service.log().count("repaired")
    assert service.run("sh", "-c", f"echo -1 >{MOUNT_POINT}/{ENTRY}").status == 0
    wait_until(lambda: service.log().count("repaired") > repaired, DEADLINE_SECONDS, "the log line of the repair")
    assert ENTRY in service.entries()
    assert service.answer() == ANSWER


def test_reload(service: OpenrcMachine) -> None:
    """A reload returns when the new config is in force, in the running daemon."""
    pid = service.pid()
    service.write(CONFIG, 'architectures = []\n[handlers.x]\nextension = "x"\ninterpreter = "/usr/bin/true"\n')
    done = service.service("reload")
    assert done.status == 0, done.stderr
    assert "x" in service.entries()
    assert ENTRY not in service.entries()
    assert service.pid() == pid != 0


def test_reload_of_a_bad_config(service: OpenrcMachine) -> None:
    """A reload of an invalid config fails with the reason, and the old config stays in force."""
    service.write(CONFIG, "architecturez = []\n")
    done = service.service("reload")
    assert done.status != 0
    assert "architecturez" in done.stderr
    assert service.service("status").status == 0
    assert ENTRY in service.entries()
    assert service.service("checkconfig").status != 0


def test_start_with_a_bad_config(service: OpenrcMachine) -> None:
    """A start with an invalid config fails with the reason, and nothing tries again."""
    assert service.service("stop").status == 0
    service.write(CONFIG, "architecturez = []\n")
    done = service.service("start")
    assert done.status != 0
    assert "architecturez" in done.stderr
    assert service.service("status").status == STOPPED
    wait_until(lambda: not service.run("pgrep", "supervise-daemo").stdout, DEADLINE_SECONDS, "the supervisor's end")


def test_start_with_a_handler_that_is_refused(service: OpenrcMachine) -> None:
    """A handler that this host refuses does not keep the others from being registered."""
    assert service.service("stop").status == 0
    interpreter = "/usr/local/bin/open"
    service.write(interpreter, "#!/bin/sh\n")
    service.run("chmod", "777", interpreter)
    service.write(CONFIG, f"{ONE_HANDLER}[handlers.x]\nextension = 'x'\ninterpreter = '{interpreter}'\n")
    done = service.service("start")
    assert done.status == 0
    assert "not every handler is registered" in done.stdout + done.stderr
    assert ENTRY in service.entries()
    assert "x" not in service.entries()


def test_a_crash(service: OpenrcMachine) -> None:
    """supervise-daemon starts a killed daemon again, which recognises the entry as its own."""
    pid = service.pid()
    inode = service.run("stat", "--format=%i", f"{MOUNT_POINT}/{ENTRY}").stdout
    assert service.run("sh", "-c", f"kill -9 {pid}").status == 0
    wait_until(lambda: service.pid() not in (0, pid), DEADLINE_SECONDS, "the new daemon")
    assert service.service("status").status == 0
    assert service.run("stat", "--format=%i", f"{MOUNT_POINT}/{ENTRY}").stdout == inode
    assert service.service("reload").status == 0


def test_stop(service: OpenrcMachine) -> None:
    """A stop ends the daemon and its supervisor, and leaves the entry registered."""
    assert service.service("stop").status == 0
    assert service.service("status").status == STOPPED
    assert service.pid() == 0
    wait_until(lambda: not service.run("pgrep", "supervise-daemo").stdout, DEADLINE_SECONDS, "the supervisor's end")
    assert ENTRY in service.entries()
    assert service.answer() == ANSWER
