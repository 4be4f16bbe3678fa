"""The time from a removal to a handler again: one entry among many, and all 33 at once."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from types import MappingProxyType

from benchmarks.contestants import (
    ALL,
    AS_THE_UNIT,
    CLOCK_CPU,
    LINES,
    NICE,
    ORDINARY,
    SYSTEMD_BINFMT,
    Clock,
    Skipped,
    beside_the_clock,
    daemon,
    loop,
    loop_in_python,
    measure,
    measure_both,
    process,
    scratch,
    wait_idle,
)
from benchmarks.figures import Goal, Part, median, quantile, shown
from support.binfmt_d import put_binfmt_d
from support.daemon import Daemon
from support.instance import Instance
from support.waiting import IN_MODIFY, DirectoryWatch, wait_until

from binfmtd.formats.register_line import rename_line
from binfmtd.model.stand_in import stand_in_name

NAME = "bench"
LINE = rb":bench:M::\x00bench::/usr/bin/true:"
CONFIG = r"""
stand_ins = "temporary"
architectures = []
[handlers.bench]
magic = '\x00bench'
interpreter = "/usr/bin/true"
flags = ""
"""
BOTH_ENTRIES = ALL.replace('stand_ins = "temporary"', 'stand_ins = "permanent"')  # the default
LOOP_OF_66 = "C loop, two entries each"
PORT = 19427
SCAN, RELOAD, REPAIR = "an event that changes nothing", "SIGHUP", "a removal, with its repair"
A_TURN = 9  # rounds; ten repairs of one entry in ten seconds are contention, and the daemon starts anew for each turn
ENTRIES = {1: 150, 50: 150, 1_000: 100, 10_000: 100}  # and the rounds of each
PAUSE_US = 200_000  # between two, for all: the longer it is the colder are the caches

Start = Callable[[Instance], AbstractContextManager[object]]


def removal(scale: float) -> Part:
    """Measure the removal of one entry, beside different numbers of foreign entries."""
    rows, medians, samples = [], {}, {}
    goals = []
    for entries, rounds in ENTRIES.items():
        found, firsts = _race(entries, max(A_TURN - 1, int(rounds * scale)))
        reference = found["C loop"]
        for who, times in found.items():
            first = _figures(firsts[who], firsts["C loop"], (0.5,))
            rows.append([f"{entries:,}", who, *_figures(times, reference, (0.5, 0.99)), *first])
            samples[f"{who}, {entries}"] = times
        medians[entries] = median(found["binfmtd"])
        goals += [
            Goal(f"median with {entries:,} entries, to the C loop", medians[entries] / median(reference), 2),
            Goal(
                f"p99 with {entries:,} entries, to the C loop",
                quantile(found["binfmtd"], 0.99) / quantile(reference, 0.99),
                5,
            ),
        ]
    fewest, most = min(ENTRIES), max(ENTRIES)
    goals.append(Goal(f"median with {most:,} entries, to that with {fewest}", medians[most] / medians[fewest], 1.5))
    return Part(("entries", "who", "median", "p99", "first after a start"), rows, goals, samples)


def anywhere(scale: float) -> Part:
    """Measure the removal with 50 entries, and with no CPU reserved for the clock."""
    found, _ = _race(50, max(A_TURN - 1, int(ENTRIES[50] * scale)), cpu=-1)
    rows = [[who, *_figures(times, found["C loop"], (0.5, 0.99))] for who, times in found.items()]
    return Part(("who", "median", "p99"), rows, (), found)


def _race(entries: int, rounds: int, cpu: int = CLOCK_CPU) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Return contestant -> seconds of its rounds, and contestant -> seconds of the first round after each start."""
    start: dict[str, Start] = {
        "C loop": lambda instance: process(instance, loop(instance, {NAME: LINE})),
        "least in Python": lambda instance: process(instance, loop_in_python("least.py", instance, {NAME: LINE})),
        "bare pyinotify": lambda instance: process(instance, loop_in_python("bare.py", instance, {NAME: LINE})),
        "binfmtd": lambda instance: daemon(instance, CONFIG),
    }
    found: dict[str, list[float]] = {who: [] for who in start}
    firsts: dict[str, list[float]] = {who: [] for who in start}
    with ExitStack() as stack:
        instances = {who: stack.enter_context(Instance()) for who in start}
        for instance in instances.values():
            for number in range(entries - 1):
                instance.register(rf":foreign{number}:M::\x01f{number:05}::/usr/bin/true:".encode())
            instance.register(LINE)
        while len(found["C loop"]) < rounds:
            for who, begin in start.items():
                with ExitStack() as running:
                    with beside_the_clock() if cpu >= 0 else nullcontext():
                        running.enter_context(begin(instances[who]))
                    first, *others = measure(instances[who], [NAME], A_TURN, PAUSE_US, NAME, cpu=cpu)
                firsts[who].append(first)
                found[who] += others
    return found, firsts


def scan(scale: float) -> Part:
    """Measure a removal while a pass scans many entries, and the cost of a scan of unchanged entries."""
    rounds = max(A_TURN, int(100 * scale))
    found = {
        "50 entries, idle": _while_it_scans(50, rounds, scanning=False),
        "10,000 entries, idle": _while_it_scans(10_000, rounds, scanning=False),
        "10,000 entries, in a scan": _while_it_scans(10_000, rounds, scanning=True),
    }
    rows = [[what, *_figures(times, found["50 entries, idle"], (0.5, 0.99))] for what, times in found.items()]
    medians = {what: median(times) for what, times in found.items()}
    cost = median(_costs_of_scans(10_000, rounds))
    goals = [
        Goal(
            "in a scan of 10,000 entries, to 50 entries",
            medians["10,000 entries, in a scan"] / medians["50 entries, idle"],
            1.5,
        ),
        Goal("CPU of a pass over 10,000 unchanged entries, median", cost * 1e3, 10, "ms"),
    ]
    return Part(("a removal by name, with", "median", "p99"), rows, goals, found)


@contextmanager
def _among(entries: int, instance: Instance, environment: Mapping[str, str] = MappingProxyType({})) -> Iterator[Daemon]:
    """Run a daemon with one handler, among many foreign entries."""
    for number in range(entries):
        instance.register(rb":foreign%d:M::\x01f%05d::/usr/bin/true:" % (number, number))
    with daemon(instance, CONFIG, environment=environment) as running:
        wait_idle(running)
        yield running


def _while_it_scans(entries: int, rounds: int, *, scanning: bool) -> list[float]:
    """Return the seconds from each removal to the registration of the stand-in."""
    times: list[float] = []
    with Instance() as instance:
        while len(times) < rounds:
            with _among(0 if times else entries, instance) as running:
                for _ in range(min(A_TURN, rounds - len(times))):
                    if scanning:
                        running.reload()
                        _wait_for_a_scan(running.pid, instance.mount_point)
                    with DirectoryWatch(instance.directory, IN_MODIFY) as watch:
                        began = time.perf_counter()
                        instance.remove(NAME)
                        watch.wait_for(lambda event: event.name == "register", what="a registration")
                        times.append(time.perf_counter() - began)
                    wait_until(lambda: NAME in instance.names(), what="the proper entry")
                    wait_idle(running)
    return times


def _wait_for_a_scan(pid: int, mount_point: str) -> None:
    """Return when the daemon has the instance open, as in a pass; ask without a pause, as that takes milliseconds."""
    while True:
        for descriptor in os.scandir(f"/proc/{pid}/fd"):
            with suppress(OSError):
                if os.readlink(descriptor.path) == mount_point:
                    return


def _costs_of_scans(entries: int, rounds: int) -> list[float]:
    """Return the loop's CPU seconds for each event that changes nothing: a check, and a pass when all is quiet."""
    with Instance() as instance, _among(entries, instance) as running:

        def spent() -> int:
            return int(Path(f"/proc/{running.pid}/schedstat").read_text().split()[0])

        costs = []
        for _ in range(rounds // 4):
            before = spent()
            with suppress(OSError):
                instance.write("register", b"refused")
            wait_idle(running)
            costs.append((spent() - before) / 1e9)
    return costs


def turns(scale: float) -> Part:
    """Measure the longest turn of the loop, in CPU time, in each scan of 10,000 foreign entries."""
    rounds = max(5, int(40 * scale))
    with Instance() as instance, ExitStack() as stack:
        written = scratch() / "turns"
        environment = {"PYTHONPATH": str(Path(__file__).with_name("turns")), "TURNS": str(written)}
        running = stack.enter_context(_among(10_000, instance, environment))

        def nothing() -> None:
            with suppress(OSError):
                instance.write("register", b"refused")

        def removal() -> None:
            instance.remove(NAME)
            wait_until(lambda: NAME in instance.names(), what="the proper entry")

        spans = {
            SCAN: _spans(running, nothing, rounds),
            RELOAD: _spans(running, running.reload, rounds),
            REPAIR: _spans(running, removal, min(A_TURN, rounds)),
        }
        running.terminate()
        made = [tuple(map(float, line.split())) for line in written.read_text().splitlines()]
    found = {
        what: [max(cpu for at, cpu in made if began <= at <= ended) for began, ended in of]
        for what, of in spans.items()
    }
    rows = [[what, f"{median(of) * 1e3:.2f} ms", f"{max(of) * 1e3:.2f} ms"] for what, of in found.items()]
    goals = [Goal(f"{what}, median of the longest turns", median(of) * 1e3, 2, "ms") for what, of in found.items()]
    return Part(("the longest turn of the loop after", "median", "longest"), rows, goals, found)


def _spans(running: Daemon, act: Callable[[], object], rounds: int) -> list[tuple[float, float]]:
    """Return when each round began and ended (monotonic, in seconds): the act, and all that the daemon does then."""
    spans = []
    for _ in range(rounds):
        began = time.monotonic()
        act()
        wait_idle(running)
        spans.append((began, time.monotonic()))
    return spans


def flush(scale: float) -> Part:
    """Measure a flush of 33 entries by -1 to ``status``: until the last serves again, and until the first does."""
    if not Path(SYSTEMD_BINFMT).exists():
        raise Skipped(f"{SYSTEMD_BINFMT} is not here: install systemd")
    rounds, pause, names = max(5, int(200 * scale)), 50_000, list(LINES)
    stand_ins = {stand_in_name(name): rename_line(line, stand_in_name(name)) for name, line in LINES.items()}
    two_each = stand_ins | LINES  # as the daemon does: first what serves
    start: dict[str, Start] = {
        "C loop": lambda instance: process(instance, loop(instance, LINES)),
        LOOP_OF_66: lambda instance: process(instance, loop(instance, two_each)),
        "systemd-binfmt": lambda _: nullcontext(),
        "binfmtd": lambda instance: daemon(instance, BOTH_ENTRIES),
    }
    found: dict[str, list[tuple[float, float]]] = {who: [] for who in start}
    whole: list[float] = []
    with ExitStack() as stack:
        instances = {who: stack.enter_context(Instance()) for who in start}
        for instance in instances.values():
            for line in LINES.values():
                instance.register(line)
        for line in stand_ins.values():
            instances[LOOP_OF_66].register(line)
        rules = put_binfmt_d(instances["systemd-binfmt"], scratch())["/usr/lib/binfmt.d"]
        (rules / "rules.conf").write_bytes(b"\n".join(LINES.values()) + b"\n")
        with beside_the_clock():
            for who, begin in start.items():
                stack.enter_context(begin(instances[who]))
        clock = Clock(instances["systemd-binfmt"])
        for _ in range(0, rounds, 5):
            for who, instance in instances.items():
                command = SYSTEMD_BINFMT if who == "systemd-binfmt" else ""
                found[who] += measure_both(instance, names, 5, pause, command=command)
            whole.append(clock([SYSTEMD_BINFMT]))
    first = {who: [times[0] for times in pairs] for who, pairs in found.items()}
    last = {who: [times[1] for times in pairs] for who, pairs in found.items()}
    last["systemd-binfmt, with its start and end"] = whole
    rows = [
        [
            who,
            *_figures(times, last["C loop"], (0.5, 0.99)),
            *(_figures(first[who], first["C loop"], (0.5, 0.99)) if who in first else ("", "")),
        ]
        for who, times in last.items()
    ]
    medians = {who: median(times) for who, times in last.items()}
    begins = {who: median(times) for who, times in first.items()}
    goals = [
        Goal("until the last serves, median, to the C loop", medians["binfmtd"] / medians["C loop"], 1.5),
        Goal("until the first serves, median, to the C loop", begins["binfmtd"] / begins["C loop"], 1.5),
        Goal("the same, to the C loop with as many entries", begins["binfmtd"] / begins[LOOP_OF_66], 1.5),
        Goal("median, to a run of systemd-binfmt", medians["binfmtd"] / median(whole), 1),
        Goal("median, to systemd-binfmt from its flush on", medians["binfmtd"] / medians["systemd-binfmt"], 1),
    ]
    return Part(("until the last serves", "median", "p99", "until the first: median", "p99"), rows, goals, last)


def busy(scale: float) -> Part:
    """Measure the flush for binfmtd alone, on an idle machine and beside a busy loop for each core, by scheduling.

    The clock has a higher real-time priority than the daemon: it waits for no core.
    """
    if os.geteuid() != 0:
        raise Skipped("the clock takes real-time priority: run this as root")
    turns, cores = max(1, int(7 * scale)), len(os.sched_getaffinity(0))
    found: dict[tuple[str, int], list[float]] = {}
    with Instance() as instance:
        for _ in range(turns):
            for loops in (0, cores):
                with ExitStack() as stack:
                    for _ in range(loops):
                        stack.callback(subprocess.Popen(["sh", "-c", "while :; do :; done"]).kill)
                    for scheduling in (ORDINARY, NICE, AS_THE_UNIT):
                        with daemon(instance, BOTH_ENTRIES, scheduling) as running:
                            wait_idle(running)
                            times = measure_both(instance, list(LINES), 30, 100_000, cpu=-1, real_time=True)
                        found.setdefault((scheduling, loops), []).extend(last for _, last in times[1:])
    rows, goals = [], []
    for scheduling in (ORDINARY, NICE, AS_THE_UNIT):
        idle, beside = found[scheduling, 0], found[scheduling, cores]
        shares = (0.5, 0.99)
        rows.append([scheduling, *_figures(idle, idle, shares), *_figures(beside, idle, shares)])
    idle, beside = found[AS_THE_UNIT, 0], found[AS_THE_UNIT, cores]
    ratio = quantile(beside, 0.99) / quantile(idle, 0.99)
    goals.append(Goal(f"p99 beside {cores} busy loops, to that of the idle machine, {AS_THE_UNIT}", ratio, 3))
    heads = ("scheduling", "idle: median", "p99", f"beside {cores} busy loops: median", "p99")
    return Part(heads, rows, goals, {f"{what}, {loops} loops": times for (what, loops), times in found.items()})


def scraped(scale: float) -> Part:
    """Measure the removal of one entry while a client requests /metrics as fast as the daemon answers."""
    rounds, config = max(A_TURN - 1, int(200 * scale)), f'{CONFIG}\n[metrics]\nlisten = "127.0.0.1:{PORT}"\n'
    quiet: list[float] = []
    asked: list[float] = []
    answers = 0
    with Instance() as instance:
        instance.register(LINE)
        while len(quiet) < rounds:
            with daemon(instance, config):
                quiet += measure(instance, [NAME], A_TURN, 20_000, NAME, cpu=-1)[1:]
            with daemon(instance, config), _scraper() as scraper:
                asked += measure(instance, [NAME], A_TURN, 20_000, NAME, cpu=-1)[1:]
                answers += int(scraper.communicate()[0])
    rows = [
        ["nobody", *_figures(quiet, quiet, (0.5, 0.99))],
        [f"one client, {answers:,} times", *_figures(asked, quiet, (0.5, 0.99))],
    ]
    return Part(("who asks", "median", "p99"), rows, (), {"nobody": quiet, "one client": asked})


@contextmanager
def _scraper() -> Iterator[subprocess.Popen[str]]:
    """Run a client that sends requests until its standard input ends, and then prints the number of answers."""
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", SCRAPER], stdin=pipe, stdout=pipe, text=True) as scraper:
        assert scraper.stdout is not None
        assert scraper.stdout.readline() == "ready\n"
        yield scraper


SCRAPER = f"""
import http.client, select, sys
count = 0
while not select.select([sys.stdin], [], [], 0)[0]:
    connection = http.client.HTTPConnection("127.0.0.1", {PORT})
    connection.request("GET", "/metrics")
    assert connection.getresponse().read()
    count += 1
    if count == 1:
        print("ready", flush=True)
print(count)
"""


def _figures(times: Sequence[float], reference: Sequence[float], shares: Sequence[float]) -> list[str]:
    pairs = [(quantile(times, share), quantile(reference, share)) for share in shares]
    return [f"{shown(took * 1e6)} us ({shown(took / unit)} x)" for took, unit in pairs]
