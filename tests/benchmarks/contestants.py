"""The contestants, in private instances: binfmtd as it is installed, the C programs, the peers."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import mkdtemp
from types import MappingProxyType

from support.daemon import Daemon
from support.instance import MOUNT_POINT, Instance
from support.waiting import wait_until

from binfmtd.catalog.architectures import CATALOG
from binfmtd.config.file_versions import DEFAULT_PATH
from binfmtd.formats.register_line import encode_line
from binfmtd.model.handler import Flags, Registration
from binfmtd.model.match import Magic

HERE = Path(__file__).parent
BUILD = HERE.parents[1] / "build" / "bench"
PYTHON = str(BUILD / "venv" / "bin" / "python")  # where binfmtd is installed as a user does, without our own tools
BINFMTD = str(BUILD / "venv" / "bin" / "binfmtd")
SYSTEMD_BINFMT = "/usr/lib/systemd/systemd-binfmt"
# The least use of pydantic: the first model takes half as much again as the import.
MODEL = "from pydantic import BaseModel\nclass Model(BaseModel):\n    field: int | None = None"
PACKAGES = "from pydantic import BaseModel; import pyinotify, structlog"  # `import pydantic` alone imports nothing
EMULATORS = "/usr/bin/qemu-{name}"
INTERPRETER = EMULATORS.format(name="aarch64")  # of what has no emulator

# 33 entries: the architectures that a host of x86-64 can need, and two more.
ARCHITECTURES = [name for name in CATALOG if name not in ("i386", "x86_64")]
MATCHES = {f"qemu-{name}": CATALOG[name].match for name in ARCHITECTURES} | {
    f"more{number}": Magic(b"\0bench%d" % number) for number in (1, 2)
}
INTERPRETERS = {name: f"/usr/bin/{name}" if name.startswith("qemu-") else INTERPRETER for name in MATCHES}
LINES = {name: encode_line(name, Registration(match, INTERPRETERS[name], Flags.F)) for name, match in MATCHES.items()}
ALL = f"""
stand_ins = "temporary"
architectures = {ARCHITECTURES}
[emulators]
paths = ["{EMULATORS}"]
flags = "F"
""" + "".join(
    f'[handlers.more{number}]\nmagic = \'\\x00bench{number}\'\ninterpreter = "{INTERPRETER}"\nflags = "F"\n'
    for number in (1, 2)
)


class Skipped(Exception):  # noqa: N818  it is no error
    """This machine lacks what is to be measured."""


def compile_programs() -> None:
    """Compile the C programs: the clock, the loop, and the one that executes."""
    BUILD.mkdir(parents=True, exist_ok=True)
    for program in ("measure", "loop", "executes"):
        command = ["cc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", str(BUILD / program), str(HERE / f"{program}.c")]
        subprocess.run(command, check=True)


# The clock has its own CPU, and contestants that a removal wakes run on the other CPUs.  Otherwise the scheduler at
# times puts the clock behind a contestant that has repaired long ago and is writing its log.  (One CPU is not split.)
_CPUS = sorted(os.sched_getaffinity(0))
CLOCK_CPU = _CPUS[-1] if len(_CPUS) > 1 else -1
_CLOCK_PRIORITY = 5  # above the daemon's 1


@contextmanager
def beside_the_clock() -> Iterator[None]:
    """Keep the processes that this block starts off the clock's CPU."""
    os.sched_setaffinity(0, set(_CPUS) - {CLOCK_CPU})
    try:
        yield
    finally:
        os.sched_setaffinity(0, _CPUS)


@contextmanager
def process(instance: Instance, argv: Sequence[str], *, real_time: bool = False) -> Iterator[None]:
    """Run a contestant, which prints ``ready`` on its standard output; ``real_time`` takes root."""
    command = instance.popen(list(argv), stdout=subprocess.PIPE)
    assert command.stdout is not None
    if command.stdout.readline() != b"ready\n":
        raise SystemExit(f"bench: {argv[0]} did not start")
    try:
        if real_time:
            os.sched_setscheduler(command.pid, os.SCHED_FIFO, os.sched_param(1))
        yield
    finally:
        command.kill()
        command.wait()


ORDINARY, NICE, AS_THE_UNIT = "as it starts", "Nice=-10", "as the unit has it"


@contextmanager
def daemon(
    instance: Instance,
    config: str | None = ALL,
    scheduling: str = ORDINARY,
    environment: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[Daemon]:
    """Run binfmtd, ready, until the block ends; a config of None is no config file.

    NICE is the unit's Nice=-10, AS_THE_UNIT its real-time priority as well; both take root, and without root they are
    ORDINARY.  With AS_THE_UNIT the daemon is privileged, since a process of the instance's user namespace may not have
    that priority.
    """
    if config is None and Path(DEFAULT_PATH).exists():
        raise Skipped(f"{DEFAULT_PATH} is there, and would count")
    scheduling = scheduling if os.geteuid() == 0 else ORDINARY
    real_time = scheduling == AS_THE_UNIT
    before = os.getpriority(os.PRIO_PROCESS, 0)
    if scheduling != ORDINARY:
        os.setpriority(os.PRIO_PROCESS, 0, -10)  # which the daemon inherits
    try:
        options = ["--real-time"] if real_time else []
        running = Daemon(instance, scratch(), config, options, dict(environment), python=PYTHON, privileged=real_time)
    finally:
        os.setpriority(os.PRIO_PROCESS, 0, before)
    try:
        running.wait_ready()
        if real_time:
            running.wait_for_log("real_time")
        yield running
    finally:
        running.close()


def wait_idle(running: Daemon) -> None:
    """Wait until a daemon has nothing to do: after READY=1 it still loads modules for a moment."""
    wait_until(partial(_idle, running.pid), what="an idle daemon")


def _idle(pid: int) -> bool:
    """Return True if a process takes no CPU time for a quarter of a second; the kernel counts in hundredths of one."""
    before = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    time.sleep(0.25)
    return before == Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]


def loop(instance: Instance, lines: Mapping[str, bytes]) -> list[str]:
    """Return the command of the C loop that keeps these entries."""
    return [str(BUILD / "loop"), *_directory_and_pairs(instance, lines)]


def loop_in_python(script: str, instance: Instance, lines: Mapping[str, bytes]) -> list[str]:
    """Return the command of such a loop in Python, a script of this directory."""
    return [PYTHON, str(HERE / script), *_directory_and_pairs(instance, lines)]


def _directory_and_pairs(instance: Instance, lines: Mapping[str, bytes]) -> list[str]:
    return [instance.mount_point, *(os.fsdecode(word) for pair in lines.items() for word in pair)]


def measure(
    instance: Instance, names: Sequence[str], rounds: int, pause_us: int, trigger: str, *, cpu: int
) -> list[float]:
    """Return for each round the seconds from a removal until all names have a handler."""
    return [last for _, last in measure_both(instance, names, rounds, pause_us, trigger, cpu=cpu)]


def measure_both(
    instance: Instance,
    names: Sequence[str],
    rounds: int,
    pause_us: int,
    trigger: str = "status",
    command: str = "",
    cpu: int = CLOCK_CPU,
    *,
    real_time: bool = False,
) -> list[tuple[float, float]]:
    """Return for each round the seconds from a removal until the first name has a handler, and until all have.

    With ``real_time`` the clock has a higher real-time priority than the daemon, which takes root.
    """
    argv = [str(BUILD / "measure"), str(cpu), MOUNT_POINT, trigger, str(rounds), str(pause_us), command, *names]
    clock = instance.popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if real_time:
        os.sched_setscheduler(clock.pid, os.SCHED_FIFO, os.sched_param(_CLOCK_PRIORITY))
    stdout, stderr = clock.communicate()
    if clock.returncode != 0:
        raise SystemExit(f"bench: {stderr.strip()}")
    pairs = (line.split() for line in stdout.splitlines())
    return [(int(first) / 1e9, int(last) / 1e9) for first, last in pairs]


class Clock:
    """A stopwatch for commands in an instance: a process inside runs them, so the time to enter is not counted."""

    def __init__(self, instance: Instance, environment: Mapping[str, str] = MappingProxyType({})) -> None:
        script = "from benchmarks.contestants import tick; tick()"
        self._process = instance.popen(
            [sys.executable, "-c", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(HERE.parent)} | dict(environment),
        )

    def __call__(self, argv: Sequence[str], *statuses: int) -> float:
        """Return the seconds that the command takes; its exit status has to be one of these, or 0."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(list(argv)), file=self._process.stdin, flush=True)
        took, status, said = json.loads(self._process.stdout.readline())
        if status not in (*statuses, 0):
            raise SystemExit(f"bench: {' '.join(argv)} ended with {status}: {said}")
        return float(took)


def tick() -> None:
    """Run the process of a Clock: for each command on standard input it prints seconds, exit status and messages."""
    for line in sys.stdin:
        began = time.perf_counter()
        done = subprocess.run(json.loads(line), capture_output=True, text=True, check=False)
        print(json.dumps([time.perf_counter() - began, done.returncode, done.stderr.strip()]), flush=True)


def scratch() -> Path:
    """Make a new directory, below the one that is removed when the benchmarks end."""
    path = Path(mkdtemp(dir=BUILD / "scratch"))
    path.chmod(0o755)
    return path
