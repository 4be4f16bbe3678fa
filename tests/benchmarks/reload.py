"""A reload of few and of many handlers: of an unchanged config, and of one that changes each of them."""

import time
from contextlib import ExitStack

from benchmarks.contestants import daemon
from benchmarks.figures import Goal, Part, median, shown
from support.daemon import Daemon
from support.instance import Instance

HANDLERS = (100, 300, 1_000, 3_000)
ROUNDS = 8
AGE = 0.3  # seconds: a config that was written just now is not read yet


def reload(scale: float) -> Part:
    """Measure the time from SIGHUP to READY=1, when each changed entry is registered under its own name."""
    rounds = max(2, int(ROUNDS * scale))
    unchanged: dict[int, list[float]] = {}
    changed: dict[int, list[float]] = {}
    for handlers in HANDLERS:
        with ExitStack() as stack:
            running = stack.enter_context(daemon(stack.enter_context(Instance()), _config(handlers, "")))
            flags = ["F", ""] * rounds
            changed[handlers] = [_reload(running, _config(handlers, each)) for each in flags[:rounds]]
            same = running.config.read_text()
            unchanged[handlers] = [_reload(running, same) for _ in range(rounds)]
            assert not running.logs("registration_failed")
    ways = {"unchanged": unchanged, "wholly changed": changed}
    rows = [
        [f"{handlers:,}", *(f"{shown(median(times[handlers]) * 1e3)} ms" for times in ways.values())]
        for handlers in HANDLERS
    ]
    few, many = HANDLERS[-2:]
    goals = [
        Goal(
            f"{what}: growth from {few:,} to {many:,} handlers, to that of their number",
            median(times[many]) / median(times[few]) / (many / few),
            1.3,
        )
        for what, times in ways.items()
    ]
    samples = {f"{what}, {number}": times[number] for what, times in ways.items() for number in HANDLERS}
    return Part(("handlers", "unchanged", "wholly changed"), rows, goals, samples)


def _config(handlers: int, flags: str) -> str:
    return "architectures = []\n" + "".join(
        f"[handlers.h{number}]\nmagic = '\\x01{number:06d}'\ninterpreter = '/usr/bin/true'\nflags = '{flags}'\n"
        for number in range(handlers)
    )


def _reload(running: Daemon, config: str) -> float:
    running.config.write_text(config)
    time.sleep(AGE)
    before = running.notifications.count("READY=1")
    began = time.perf_counter()
    running.reload()
    running.wait_notified("READY=1", before + 1)
    return time.perf_counter() - began
