"""``make bench``: measure, and write the figures into docs/benchmarks.md, its plots and the README.

A SCALE below 1 makes fewer rounds, and leaves the docs alone.  PARTS=removal,idle runs only these parts; PARTS=builds
runs the parts builds-* as well.
"""

import argparse
import json
import os
import platform
import shutil
import time
from collections.abc import Callable
from typing import Any

from benchmarks import builds, docker_builds, idle, reload, repair, report, startup, storm, upgrade
from benchmarks.contestants import BUILD, PYTHON, Skipped, compile_programs
from benchmarks.figures import Part

import binfmtd

PARTS: dict[str, Callable[[float], Part]] = {
    "builds": builds.builds,
    "builds-slow": builds.builds_slow,
    "builds-cores": builds.builds_cores,
    "builds-peers": builds.builds_peers,
    "docker": docker_builds.docker_builds,
    "removal": repair.removal,
    "anywhere": repair.anywhere,
    "flush": repair.flush,
    "busy": repair.busy,
    "scraped": repair.scraped,
    "scan": repair.scan,
    "turns": repair.turns,
    "failures": storm.failures,
    "upgrade": upgrade.upgrade,
    "idle": idle.idle,
    "memory": idle.memory,
    "start": startup.start,
    "one-shot": startup.one_shot,
    "commands": startup.commands,
    "sandbox": startup.sandbox,
    "reload": reload.reload,
}
RESULTS = BUILD / "results.json"


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench")
    parser.add_argument("--scale", type=float, default=1)
    parser.add_argument("--parts", default=",".join(PARTS))
    given = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # in use a daemon has bytecode
    compile_programs()
    shutil.rmtree(BUILD / "scratch", ignore_errors=True)
    (BUILD / "scratch").mkdir(mode=0o755)
    results: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() and given.scale == 1 else {}
    asked = given.parts.split(",")
    if unknown := [word for word in asked if word not in PARTS]:
        parser.error(f"no such part: {', '.join(unknown)}; there are {', '.join(PARTS)}")
    for name in (name for name in PARTS if any(f"{name}-".startswith(f"{word}-") for word in asked)):
        began = time.monotonic()
        try:
            part = PARTS[name](given.scale)
        except Skipped as reason:
            print(f"{name}: skipped: {reason}", flush=True)
            continue
        print(f"\n## {name} ({time.monotonic() - began:.0f} s)\n{report.table(part)}", flush=True)
        for goal in part.goals:
            print(f"{'met' if goal.met else 'MISSED'}: {goal.what}: {goal.shown}, at most {goal.limit:g} {goal.unit}")
        results[name] = {**part._asdict(), "goals": [goal._asdict() for goal in part.goals], "machine": _machine()}
        if given.scale == 1:
            RESULTS.write_text(json.dumps(results))
    shutil.rmtree(BUILD / "scratch")
    if given.scale == 1:
        report.write(results)


def _machine() -> str:
    with open("/proc/cpuinfo", encoding="ascii") as file:
        model = next((line.partition(":")[2].strip() for line in file if line.startswith("model name")), "")
    python = os.popen(f"{PYTHON} --version").read().strip()  # noqa: S605  a path of our own
    return (
        f"binfmtd {binfmtd.__version__}, {time.strftime('%Y-%m-%d')}, Linux {platform.release()} on "
        f"{platform.machine()} ({model}), {os.cpu_count()} CPUs, {python}"
    )


if __name__ == "__main__":
    main()
