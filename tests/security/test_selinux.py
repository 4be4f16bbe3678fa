"""SELinux, enforcing, with Debian's policy: the daemon in the domain of a service, and emulators of containers.

Runs in a virtual machine of `make test-security`.
"""

import errno
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.cli import run
from support.confined import BINFMTD, CONFIG, RUN, STEPS, TWO, KernelLog, Machine, Start, probes, starting
from support.daemon import Daemon
from support.instance import MOUNT_POINT, made_for_tests
from support.programs import FOREIGN, foreign_program
from support.waiting import SLOWNESS, wait_until

from binfmtd.catalog.architectures import CATALOG

SELINUX = Path("/sys/fs/selinux")
POLICY = Path("/etc/selinux/default/contexts/files/file_contexts")
# A shell that the policy takes for process 1: what it executes gets the domain of a service of systemd.
INIT = "/usr/local/sbin/init-sh"
STATE = str(RUN / "state")
SERVICE = "system_u:system_r:initrc_t:s0"

# What an administrator has who logs in.
ADMINISTRATOR = "unconfined_u:unconfined_r:unconfined_t:s0-s0:c0.c1023"
AS_SERVICE = (INIT, "-c", 'exec "$@"', "sh")
AS_ADMINISTRATOR = (*AS_SERVICE, "runcon", ADMINISTRATOR)
CONTAINER = "system_u:system_r:container_t:s0:{}"
PRIVILEGED_CONTAINER = "system_u:system_r:spc_t:s0"

# Becomes a process of this context while the policy is not enforced, stops, and executes the program when continued.
BECOME = """
import os, signal, sys
with open("/proc/self/attr/current", "w") as file:
    file.write(sys.argv[1])
os.kill(os.getpid(), signal.SIGSTOP)
os.execv(sys.argv[2], sys.argv[2:])
"""
# Opens a file for writing; its exit status is the errno.
OPENS = """
import os, sys
try:
    os.open(sys.argv[1], os.O_WRONLY)
except OSError as error:
    os._exit(error.errno)
"""
RUNS = 42
DIES = -signal.SIGSEGV


@pytest.fixture(scope="module", autouse=True)
def selinux() -> None:
    """Load Debian's policy, label all files, and enforce the policy."""
    if not made_for_tests():
        pytest.skip("takes a virtual machine of `make test-security`")
    subprocess.run(["mount", "-t", "selinuxfs", "selinuxfs", str(SELINUX)], check=True)
    subprocess.run(["load_policy", "-i"], check=True)
    subprocess.run(["setfiles", str(POLICY), "/"], check=True)
    subprocess.run(["restorecon", "-R", "/dev", "/run"], check=True)  # as systemd does
    shutil.copy("/usr/bin/dash", INIT)
    subprocess.run(["chcon", "-t", "init_exec_t", INIT], check=True)
    enforce("1")
    assert (SELINUX / "enforce").read_text() == "1"


def enforce(mode: str) -> None:
    (SELINUX / "enforce").write_text(mode)


@pytest.fixture
def machine() -> Machine:
    return Machine(AS_SERVICE)


@pytest.fixture
def start(machine: Machine) -> Iterator[Start]:
    with starting(machine) as start:
        yield start


@pytest.fixture
def denied() -> Callable[[], list[str]]:
    """Return a function for the lines of the kernel's log, from now on, about what our domain was denied."""
    log = KernelLog()
    return lambda: [line for line in log() if "avc:  denied" in line and f"scontext={SERVICE}" in line]


def domain(daemon: Daemon) -> str:
    return Path(f"/proc/{daemon.pid}/attr/current").read_text().rstrip("\0\n")


def findings(confining: tuple[str, ...] = AS_ADMINISTRATOR) -> list[dict[str, str]]:
    """Return what `doctor` finds, by default as an administrator runs it."""
    found: list[dict[str, str]] = run([*confining, BINFMTD, "doctor", "--json", "--state-dir", STATE]).json["findings"]
    return found


@contextmanager
def execmem() -> Iterator[None]:
    """Allow memory that is both writable and executable to all domains."""
    subprocess.run(["setsebool", "allow_execmem", "on"], check=True)
    try:
        yield
    finally:
        subprocess.run(["setsebool", "allow_execmem", "off"], check=True)


# The daemon


@pytest.mark.parametrize("step", [step for step in STEPS if step is not probes], ids=lambda step: step.__name__)
def test_the_daemon(
    start: Start, machine: Machine, denied: Callable[[], list[str]], step: Callable[[Start, Machine], None]
) -> None:
    """The daemon does its work in the domain that the policy gives a service, which is denied nothing."""
    step(start, machine)
    assert denied() == []


def test_its_domain(start: Start) -> None:
    """Debian's policy has no domain of its own for the daemon: it gets the one of services, initrc_t."""
    assert domain(start(TWO)) == SERVICE


def test_the_probe(start: Start, machine: Machine, denied: Callable[[], list[str]]) -> None:
    """The domain of services has no execmem, so no emulator runs; the boolean that the message names allows it."""
    daemon = start(TWO + 'probe = "after-repair"\n')
    reason = daemon.wait_for_log("probe_failed", 60)["reason"]
    assert f"SELinux forbids it in the domain {SERVICE}" in reason
    assert "setsebool" in reason
    assert any("{ execmem }" in line for line in denied())
    (found,) = (each for each in findings(AS_SERVICE) if each["check"] == "code_memory")
    assert found["remedy"] == "setsebool -P allow_execmem on"
    daemon.terminate()
    with execmem():
        probes(start, machine)


def test_containers(machine: Machine) -> None:
    """Of the processes of containers, only those with the type spc_t may write to binfmt_misc."""
    subprocess.run(["mount", "-t", "binfmt_misc", "binfmt_misc", MOUNT_POINT], check=True)
    try:
        opens = [sys.executable, "-c", OPENS, f"{MOUNT_POINT}/register"]
        assert execute(opens, CONTAINER.format("c1,c2")) == errno.EACCES
        assert execute(opens, PRIVILEGED_CONTAINER) == 0
        execute([BINFMTD, "apply", "--arch", FOREIGN], PRIVILEGED_CONTAINER)
        assert machine.names() == [f"qemu-{FOREIGN}"]
    finally:
        machine.close()


def test_a_denial(machine: Machine) -> None:
    """`doctor` names what binfmtd was denied in a container without spc_t, where it can register nothing."""
    subprocess.run(["mount", "-t", "binfmt_misc", "binfmt_misc", MOUNT_POINT], check=True)
    try:
        assert execute([BINFMTD, "apply", "--arch", FOREIGN], CONTAINER.format("c1,c2")) != 0
        assert machine.names() == []
        texts = [found["text"] for found in findings() if found["check"] == "denied"]
        assert any(text.startswith(f"SELinux denied {CONTAINER.format('c1,c2')}: ") for text in texts), texts
        assert not any("execmem" in text for text in texts)  # `code_memory` is the finding for that
    finally:
        machine.close()


# Emulators of containers


@pytest.fixture
def program() -> str:
    """Return a foreign program that each container may execute."""
    path = foreign_program(Path("/usr/local/lib/foreign"), CATALOG[FOREIGN])
    subprocess.run(["chcon", "system_u:object_r:container_file_t:s0", str(path)], check=True)
    return str(path)


@pytest.fixture
def emulator() -> str:
    """Return the path of an emulator whose label a test may change."""
    directory = Path("/usr/local/lib/emulators")
    directory.mkdir(exist_ok=True)
    return str(shutil.copy(f"/usr/bin/qemu-{FOREIGN}", directory))


def label(path: str, context: str) -> None:
    subprocess.run(["chcon", context, path], check=True)


def execute(command: list[str], context: str) -> int:
    """Execute it in a process of this context; return its exit status, or the negative number of its signal.

    The policy allows the transition to container_t only to programs that this machine does not have.
    """
    enforce("0")
    try:
        process = subprocess.Popen([sys.executable, "-c", BECOME, context, *command], stdin=subprocess.DEVNULL)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
    finally:
        enforce("1")
    process.send_signal(signal.SIGCONT)
    return process.wait(60 * SLOWNESS)


def register(start: Start, machine: Machine, emulator: str) -> str:
    """Have the daemon register this emulator; return the config."""
    config = f'architectures = ["{FOREIGN}"]\n[emulators]\npaths = ["{Path(emulator).parent}/qemu-{{name}}"]\n'
    start(config)
    wait_until(lambda: machine.names() == [f"qemu-{FOREIGN}"], what="the entry")
    return config


# The label of an emulator, and the result in the container c1,c2 and in the container c3,c4.
LABELS = [
    ("system_u:object_r:bin_t:s0", RUNS, RUNS),  # as a package of the host installs it
    ("system_u:object_r:container_file_t:s0:c1,c2", RUNS, DIES),  # as podman labels the files of a container
    ("system_u:object_r:container_file_t:s0", RUNS, RUNS),  # with label=level:s0
    ("system_u:object_r:var_lib_t:s0", DIES, DIES),  # a file made in /var/lib
]


@pytest.mark.parametrize(("context", "own", "other"), LABELS, ids=[context for context, _, _ in LABELS])
def test_labels(
    start: Start, machine: Machine, program: str, emulator: str, context: str, own: int, other: int
) -> None:
    """The label of the emulator that F opened decides in which containers programs run.

    `check` and `doctor` name a label with which they do not run everywhere; doctor's remedy ends that at once.
    """
    label(emulator, context)
    register(start, machine, emulator)
    assert [execute([program], CONTAINER.format(categories)) for categories in ("c1,c2", "c3,c4")] == [own, other]
    warnings = run([*AS_ADMINISTRATOR, BINFMTD, "check", "--json"]).json["warnings"]
    found = [each for each in findings() if each["check"] == "label"]
    assert [each["text"] for each in found] == warnings
    assert len(found) == int(DIES in (own, other))
    for each in found:
        assert f"{emulator} has the SELinux label {context}" in each["text"]
        subprocess.run(shlex.split(each["remedy"]), check=True)
        assert execute([program], CONTAINER.format("c3,c4")) == RUNS
    assert [each for each in findings() if each["check"] == "label"] == []
    assert run([*AS_ADMINISTRATOR, BINFMTD, "check", "--json"]).json["warnings"] == []


@pytest.mark.parametrize("confining", [AS_SERVICE, AS_ADMINISTRATOR], ids=["service", "administrator"])
def test_apply(machine: Machine, confining: tuple[str, ...]) -> None:
    """`binfmtd apply` registers as a service, and as an administrator."""
    try:
        assert run([*confining, BINFMTD, "apply", "--arch", FOREIGN]).status == 0
        assert machine.names() == [f"qemu-{FOREIGN}"]
    finally:
        machine.close()


def test_persistent(machine: Machine, program: str) -> None:
    """The copies of --persistent get the label of a package's emulator: they run in each container after a reboot."""
    host = Path("/host")  # this machine's root, as a container sees it that has it bound in
    for directory in (host, Path("/etc/binfmt.d"), Path("/var/lib/binfmtd")):
        directory.mkdir(exist_ok=True)
    subprocess.run(["mount", "--bind", "/", str(host)], check=True)
    copy = f"/var/lib/binfmtd/boot/usr/bin/qemu-{FOREIGN}"
    try:
        CONFIG.write_text("")  # an earlier test named other emulators
        command = [BINFMTD, "apply", "--arch", FOREIGN, "--persistent", "--host-root", str(host)]
        assert run([*AS_SERVICE, *command]).status == 0
        machine.remove("status")
        subprocess.run(["/usr/lib/systemd/systemd-binfmt"], check=True)  # as at boot
        assert f"interpreter {copy}\n" in machine.read(f"qemu-{FOREIGN}")
        assert os.getxattr(copy, "security.selinux") == b"system_u:object_r:bin_t:s0\0"
        assert [execute([program], CONTAINER.format(categories)) for categories in ("c1,c2", "c3,c4")] == [RUNS, RUNS]
        assert [each for each in findings() if each["check"] == "label"] == []
    finally:
        subprocess.run(["umount", str(host)], check=True)
        machine.close()


def test_the_store(machine: Machine, program: str) -> None:
    """The emulators in the store get that label, too; a daemon's or `apply`'s entry with one serves each container."""
    shutil.rmtree("/var/lib/binfmtd/emulators", ignore_errors=True)
    emulators = [*AS_ADMINISTRATOR, BINFMTD, "emulators"]
    try:
        CONFIG.write_text(f'architectures = ["{FOREIGN}"]\n[emulators]\nversion = "first"\n')
        added = run([*emulators, "import", "/usr/bin", "--arch", FOREIGN, "--name", "first"])
        assert added.status == 0, added.stderr
        emulator = f"/var/lib/binfmtd/emulators/first/qemu-{FOREIGN}"
        user, _, label = os.getxattr(emulator, "security.selinux").partition(b":")
        assert (user, label) == (b"unconfined_u", b"object_r:bin_t:s0\0"), "the user is the administrator's"
        assert run([*AS_SERVICE, BINFMTD, "apply"]).status == 0
        assert f"interpreter {emulator}\n" in machine.read(f"qemu-{FOREIGN}")
        assert [execute([program], CONTAINER.format(categories)) for categories in ("c1,c2", "c3,c4")] == [RUNS, RUNS]
        assert [each for each in findings() if each["check"] == "label"] == []
        assert run([*emulators, "verify"]).status == 0
    finally:
        machine.close()


def test_the_sandbox(program: str) -> None:
    """`binfmtd sandbox` runs a foreign program for an administrator and for a service, if execmem is allowed."""
    for confining in (AS_ADMINISTRATOR, AS_SERVICE):
        sandbox = [*confining, BINFMTD, "sandbox", "--arch", FOREIGN, "--", program]
        refused = run(sandbox)
        assert refused.status != RUNS
        assert "Permission denied" in refused.stderr  # QEMU's words
        with execmem():
            assert run(sandbox).status == RUNS
