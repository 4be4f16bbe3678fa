"""Other programs that manage the same instance never fail because of the daemon, and its state comes back."""

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from support import Times, binfmt_support
from support.binfmt_d import SYSTEMD_BINFMT, needs_systemd_binfmt, put_binfmt_d
from support.daemon import Daemon, StartDaemon
from support.drop_in import DropIn
from support.exec_loop import ExecLoop
from support.instance import Instance
from support.programs import exits_with, foreign_program, install
from support.waiting import wait_until

from binfmtd.catalog.architectures import CATALOG
from binfmtd.formats.register_line import encode_line
from binfmtd.model.handler import Flags, Registration
from binfmtd.model.stand_in import is_stand_in

RUNS = 300
BUSY_LOOPS = 4  # on two cores
SETTLE_SECONDS = 0.02  # the default
LONGER = "200ms"  # a process that is held up between its two writes for longer than `settle` gets EEXIST
LONGER_SECONDS = 0.2
ATTEMPTS = 5
ARCHITECTURES = [name for name in CATALOG if name not in ("i386", "x86_64")]
NICE = -10  # as in the unit; the executed program has it too, so that it does not wait for a core
# Each run uses the next name, since ten repairs of one entry in ten seconds would be contention.
IN_TURN = ("riscv64", *(name for name in ARCHITECTURES if name != "riscv64"))


@dataclass(frozen=True)
class Host:
    """An instance with its daemon, and a directory and an interpreter for a neighbour."""

    instance: Instance
    daemon: Daemon
    directory: Path
    interpreter: Path

    def line(self, name: str, interpreter: Path | None = None) -> bytes:
        """Return the line that registers an architecture as the daemon does, or with another interpreter."""
        registration = Registration(CATALOG[name].match, str(interpreter or self.interpreter), Flags.F)
        return encode_line(f"qemu-{name}", registration)

    def wait_longer(self, settle: str) -> None:
        """Set `settle`, the time that the daemon waits for a program that registers an entry again."""
        self.daemon.config.write_text(f'settle = "{settle}"\n{self.daemon.config.read_text()}')
        self.daemon.reload()
        self.daemon.wait_for_log("config_reloaded")
        self.daemon.wait_converged()


@pytest.fixture
def host(instance: Instance, start_daemon: StartDaemon, tmp_path: Path) -> Host:
    """Return an instance where a daemon keeps an entry for every architecture."""
    (tmp_path / "bin").mkdir(mode=0o755)
    interpreter = install(tmp_path / "bin" / "interpreter", exits_with(1))
    names = '", "'.join(ARCHITECTURES)
    daemon = start_daemon(f'architectures = ["{names}"]\n[emulators]\npaths = ["{interpreter}"]\nflags = "F"\n')
    return Host(instance, daemon, tmp_path, interpreter)


@pytest.fixture(params=["idle", "busy"])
def load(request: pytest.FixtureRequest, times: Times) -> Iterator[str]:
    """Keep the machine idle, or run four busy loops, and yield which."""
    if request.param == "busy" and times(RUNS) < RUNS:
        pytest.skip("only in make reliability: what else a machine does must not come on top")
    with ExitStack() as stack:
        for _ in range(BUSY_LOOPS if request.param == "busy" else 0):
            loop = stack.enter_context(subprocess.Popen(["sh", "-c", "while :; do :; done"]))
            stack.callback(loop.kill)
        yield request.param


def run_beside(
    host: Host, load: str, runs: int, what: str, run: Callable[[int], None], settle: float | None = None
) -> None:
    """Call ``run`` again and again while a foreign program is executed.

    Waits after each call until the daemon's entries stand again, and asserts that there was no error and no contention.

    A busy machine may hold up any program between its two writes.  So a call that fails is made again if it has taken
    longer than ``settle``, in seconds; None: it may not fail at all.  That includes the start of the program, so only
    one call and one in a hundred may be made again: more would be the daemon's fault.
    """
    held_up = 0
    if load == "busy":
        host.wait_longer(LONGER)
    expected = {f"qemu-{name}": host.instance.read(f"qemu-{name}") for name in ARCHITECTURES}
    program = foreign_program(host.directory / "program", CATALOG[IN_TURN[0]])

    def is_back() -> bool:
        names = host.instance.names()
        if any(map(is_stand_in, names)) or not expected.keys() <= set(names):
            return False
        try:
            return all(host.instance.read(name) == text for name, text in expected.items())
        except FileNotFoundError:
            return False

    with ExecLoop(host.instance, program) as loop:
        if load == "busy":
            with suppress(PermissionError):  # only root can set the unit's priority
                for pid in (host.daemon.pid, loop.pid):
                    os.setpriority(os.PRIO_PROCESS, pid, NICE)
        for number in range(runs):
            for attempt in range(ATTEMPTS):
                began = time.monotonic()
                try:
                    run(number)
                    break
                except AssertionError as error:
                    took = time.monotonic() - began
                    held_up += 1
                    if settle is None or took < settle or attempt == ATTEMPTS - 1:
                        raise
                    print(f"run {number} was held up, and is made again after {took * 1000:.0f} ms: {error}")
                wait_until(is_back, 30, f"the daemon's state after run {number}")
            wait_until(is_back, 30, f"the daemon's state after run {number}")
        outcomes = loop.stop()
    failed = sum(count for outcome, count in outcomes if isinstance(outcome, str))
    print(
        f"{what}, {load}: {runs} runs, {sum(count for _, count in outcomes)} executions of which {failed} failed;"
        f" the longest time without one that succeeded: {loop.longest_gap * 1000:.2f} ms"
    )
    assert held_up <= 1 + runs // 100
    assert outcomes[0][0] == outcomes[-1][0] == 1
    assert not host.daemon.logs(level="error")
    assert not host.daemon.logs("contention_started")


def settle_of(load: str) -> float:
    """Return the `settle` that ``run_beside`` uses, in seconds."""
    return LONGER_SECONDS if load == "busy" else SETTLE_SECONDS


def succeed(host: Host, argv: list[str], environment: dict[str, str] | None = None) -> None:
    """Run a command in the instance; fail with its output if it does not succeed."""
    done = host.instance.run(argv, env=os.environ | (environment or {}))
    assert done.returncode == 0, f"{argv} failed with {done.returncode}: {done.stderr or done.stdout}"


def test_systemd_binfmt(host: Host, load: str, times: Times) -> None:
    """systemd-binfmt, which flushes and then removes and registers rule by rule, succeeds beside the daemon.

    Its rules are one of the daemon's entries, one with another interpreter, and a foreign one.
    """
    needs_systemd_binfmt()
    rules = put_binfmt_d(host.instance, host.directory / "tree")["/usr/lib/binfmt.d"]
    other = install(host.directory / "bin" / "other", exits_with(2))
    lines = [host.line("riscv64"), host.line("s390x", other), b":foreign:M::\\x00foreign::/usr/bin/true:"]
    (rules / "rules.conf").write_bytes(b"\n".join(lines) + b"\n")
    settle = settle_of(load)
    run_beside(host, load, times(RUNS), "systemd-binfmt", lambda _: succeed(host, [str(SYSTEMD_BINFMT)]), settle)
    assert "foreign" in host.instance.names()


def test_a_shell(host: Host, load: str, times: Times) -> None:
    """A shell that removes one entry or all, and registers an entry again within `settle`, succeeds."""

    def run(number: int) -> None:
        name = IN_TURN[number % len(IN_TURN)]
        removed = "status" if number % 2 else f"qemu-{name}"
        # By the shell's own commands: starting another program takes longer than `settle` on a busy machine.
        script = f'cd {host.instance.mount_point}; echo -1 >{removed}; printf %s "$1" >register'
        succeed(host, ["sh", "-euc", script, "sh", os.fsdecode(host.line(name))])

    run_beside(host, load, times(RUNS), "a shell", run, settle_of(load))


def test_the_drop_in(host: Host, load: str, times: Times) -> None:
    """`binfmt --uninstall` followed by `binfmt --install` succeeds beside the daemon."""
    directory = host.directory / "drop-in"
    directory.mkdir()
    binfmt = DropIn(host.instance, directory)

    def run(number: int) -> None:
        name = IN_TURN[number % len(IN_TURN)]
        for option in ("--uninstall", "--install"):
            result = binfmt(f"{option} {name}")
            assert result.status == 0, result.stderr

    for name in IN_TURN:
        binfmt.put(name, host.interpreter.read_bytes())
    run_beside(host, load, times(RUNS) // 3 + 1, "binfmt --uninstall; --install", run)


@pytest.fixture(scope="module")
def update_binfmts(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, str]]:
    """Return the real update-binfmts and its environment."""
    try:
        return binfmt_support.update_binfmts(tmp_path_factory.mktemp("binfmt-support"))
    except binfmt_support.UnavailableError as reason:
        pytest.skip(str(reason))


@pytest.mark.debian
def test_update_binfmts(host: Host, load: str, times: Times, update_binfmts: tuple[str, dict[str, str]]) -> None:
    """`--disable NAME`, then `--enable NAME` succeed if `settle` is a little longer, since these are two processes."""
    if load == "idle":  # if busy, run_beside does this
        host.wait_longer(LONGER)
    program, environment = update_binfmts
    handlers = {f"qemu-{name}": (CATALOG[name].match, str(host.interpreter)) for name in IN_TURN}
    admin = binfmt_support.admin_directory(host.directory / "admin", handlers)

    def run(number: int) -> None:
        name = f"qemu-{IN_TURN[number % len(IN_TURN)]}"
        for option in ("--disable", "--enable"):
            succeed(host, [program, "--admindir", str(admin), option, name], environment)

    run_beside(host, load, times(RUNS), "update-binfmts --disable; --enable", run, LONGER_SECONDS)


def test_beyond_settle(host: Host) -> None:
    """A program that registers an entry again after more than `settle` gets EEXIST; a longer `settle` prevents that."""
    name, line = "qemu-riscv64", host.line("riscv64")

    inode = host.instance.inode(name)
    host.instance.remove(name)
    host.instance.wait_registered_anew(name, inode)
    with pytest.raises(FileExistsError):
        host.instance.register(line)
    host.wait_longer("1s")
    assert any(registers_within(host, name, line, 1.0) for _ in range(ATTEMPTS))


def registers_within(host: Host, name: str, line: bytes, settle: float) -> bool:
    """Remove an entry, and register it when the daemon has noticed that; return False if that took too long.

    Until ``settle`` is over, in seconds, EEXIST is an error.
    """
    inode = host.instance.inode(name)
    began = time.monotonic()
    host.instance.remove(name)
    in_time = True

    def noticed() -> bool:
        nonlocal in_time
        in_time = time.monotonic() < began + settle
        return not in_time or host.daemon.status()["state"] == "drifting"

    wait_until(noticed, what="a drift that the daemon has noticed")
    try:
        host.instance.register(line)
    except FileExistsError:
        if time.monotonic() < began + settle:
            raise
        in_time = False
    host.instance.wait_registered_anew(name, inode)
    host.daemon.wait_converged()
    return in_time
