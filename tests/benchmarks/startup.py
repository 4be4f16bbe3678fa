"""Start-up times of whole processes: the daemon, ``apply``, the other commands, a sandbox."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from benchmarks.contestants import (
    ALL,
    BINFMTD,
    INTERPRETERS,
    LINES,
    MATCHES,
    MODEL,
    PACKAGES,
    PYTHON,
    SYSTEMD_BINFMT,
    Clock,
    daemon,
    scratch,
)
from benchmarks.figures import Goal, Part, in_turns, median, quantile, shown
from support.binfmt_d import put_binfmt_d
from support.binfmt_support import UnavailableError, admin_directory, update_binfmts
from support.instance import Instance
from support.programs import foreign_program

from binfmtd.catalog.architectures import CATALOG

TURNS = 21
DO_NOTHING = "python -c pass"
COMMAND_LINE = "import of argparse, json and typing"
PYDANTIC = "import of pydantic's BaseModel"
ONE_MODEL = "the same, and a model of one field"
BARE = "import of the three packages"
BARE_AND_MODEL = "import of the three packages, and a model of one field"
IMPORTS = {
    DO_NOTHING: "pass",
    COMMAND_LINE: "import argparse, json, typing",
    PYDANTIC: "from pydantic import BaseModel",
    ONE_MODEL: MODEL,
    BARE: PACKAGES,
    BARE_AND_MODEL: f"{PACKAGES}\n{MODEL}",
}
DRIFT = 3  # the exit status of plan, where there is something to do

Run = Callable[[], float]
Limits = Mapping[str, tuple[str, float]]  # name -> the name that it is compared with, and the highest ratio allowed


def start(scale: float) -> Part:
    """Measure the daemon until READY=1, in an empty instance and without state, and the imports until they are done."""
    with ExitStack() as stack:
        instance = stack.enter_context(Instance())
        clock = Clock(instance)

        def starts(config: str | None) -> float:
            _empty(instance)
            began = time.perf_counter()
            with daemon(instance, config):
                return time.perf_counter() - began

        found = in_turns(
            _turns(scale),
            {
                **_imports(clock, BARE, BARE_AND_MODEL),
                "binfmtd, no config file": lambda: starts(None),
                "binfmtd, config file of 33 handlers": lambda: starts(ALL),
            },
        )
    limits = {"binfmtd, no config file": (BARE, 1.5), "binfmtd, config file of 33 handlers": (BARE, 1.5)}
    return _part(found, BARE, limits)


def one_shot(scale: float) -> Part:
    """Measure ``apply`` of 33 handlers, and the peers with as many; each in its own instance."""
    with ExitStack() as stack:
        config = scratch() / "binfmtd.toml"
        config.write_text(ALL)
        fresh, done, systemd = (stack.enter_context(Instance()) for _ in range(3))
        clock = Clock(fresh)

        def from_nothing(*words: str) -> float:
            _empty(fresh)
            return clock([BINFMTD, *words, "--state-dir", str(scratch())])

        again = Clock(done)
        apply = [BINFMTD, "apply", "--config", str(config), "--state-dir", str(scratch())]
        runs: dict[str, Run] = {
            **_imports(clock, PYDANTIC, ONE_MODEL),
            "binfmtd apply, all to do": lambda: from_nothing("apply", "--config", str(config)),
            "binfmtd apply, nothing to do": lambda: again(apply),
            "binfmtd --arch all without a config file, all to do": lambda: from_nothing("--arch", "all"),
        }
        if Path(SYSTEMD_BINFMT).exists():
            rules = put_binfmt_d(systemd, scratch())["/usr/lib/binfmt.d"]
            (rules / "rules.conf").write_bytes(b"\n".join(LINES.values()) + b"\n")
            clock_of_systemd = Clock(systemd)
            runs["systemd-binfmt"] = lambda: clock_of_systemd([SYSTEMD_BINFMT])
        try:
            program, environment = update_binfmts(scratch())
        except UnavailableError as reason:
            print(f"one-shot: without update-binfmts: {reason}")
        else:
            debian = stack.enter_context(Instance())
            clock_of_debian = Clock(debian, environment)
            same = {name: (match, INTERPRETERS[name]) for name, match in MATCHES.items()}
            enable = [program, "--admindir", str(admin_directory(scratch() / "admin", same)), "--enable"]

            def enable_all() -> float:
                _empty(debian)
                return clock_of_debian(enable)

            runs["update-binfmts --enable, all to do"] = enable_all
        found = in_turns(_turns(scale), runs)
    limits: Limits = {name: (PYDANTIC, 1.5) for name in found if name.startswith("binfmtd")}
    return _part(found, PYDANTIC, limits)


def commands(scale: float) -> Part:
    """Measure commands beside a daemon with 33 handlers that has converged."""
    with ExitStack() as stack:
        instance = stack.enter_context(Instance())
        running = stack.enter_context(daemon(instance, ALL))
        clock = Clock(instance)
        program = foreign_program(scratch() / "program", CATALOG["aarch64"])
        state = ["--state-dir", str(running.state_directory)]
        with_file, without = ["--config", str(running.config)], [*state]

        def ours(*words: str) -> Run:
            return lambda: clock([BINFMTD, *words], DRIFT)

        found = in_turns(
            _turns(scale),
            {
                **_imports(clock, DO_NOTHING, COMMAND_LINE, PYDANTIC, ONE_MODEL),
                "status": ours("status", *state),
                "explain PROGRAM": ours("explain", str(program), *state),
                "plan, config file": ours("plan", *with_file, *state),
                "check, config file": ours("check", *with_file, *state),
                "plan, no config file": ours("plan", *without),
                "check, no config file": ours("check", *without),
            },
        )
    limits: Limits = {
        **dict.fromkeys(("status", "explain PROGRAM"), (DO_NOTHING, 2.5)),
        **dict.fromkeys(("plan, config file", "check, config file"), (PYDANTIC, 1.5)),
    }
    return _part(found, DO_NOTHING, limits)


def sandbox(scale: float) -> Part:
    """Measure a sandbox without a config file, and with every emulator of this machine."""
    with Instance() as instance:
        clock = Clock(instance)
        found = in_turns(
            _turns(scale),
            {
                "unshare -Urm true": lambda: clock(["unshare", "-Urm", "true"]),
                **_imports(clock, BARE),
                "binfmtd sandbox -- true": lambda: clock([BINFMTD, "sandbox", "--", "true"]),
            },
        )
    both = "the two together"
    found[both] = [sum(pair) for pair in zip(found["unshare -Urm true"], found[BARE], strict=True)]
    return _part(found, both, {"binfmtd sandbox -- true": (both, 1.5)})


def _turns(scale: float) -> int:
    return max(3, int(TURNS * scale))


def _imports(clock: Clock, *names: str) -> dict[str, Run]:
    return {name: partial(clock, [PYTHON, "-c", IMPORTS[name]]) for name in names}


def _empty(instance: Instance) -> None:
    instance.remove("status")
    instance.write("status", b"1")


def _part(found: Mapping[str, Sequence[float]], reference: str, limits: Limits) -> Part:
    unit = median(found[reference])
    rows = [
        [
            who,
            f"{shown(median(times) * 1e3)} ms ({shown(median(times) / unit)} x)",
            f"{shown(quantile(times, 0.99) * 1e3)} ms",
        ]
        for who, times in found.items()
    ]
    goals = [
        Goal(f"{who}, to: {other}", median(found[who]) / median(found[other]), limit)
        for who, (other, limit) in limits.items()
    ]
    return Part(("what", "median", "slowest"), rows, goals, found)
