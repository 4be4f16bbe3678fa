"""Write the results into the docs: each table stands between two comments, and the text around is written by hand."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.figures import Goal, Part
from benchmarks.plots import plot_all

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "benchmarks.md"
README = ROOT / "README.md"
PLOTS = ROOT / "docs" / "benchmarks"


def table(part: Part) -> str:
    """Return the part's table as Markdown."""
    lines = [part.head, ["---"] * len(part.head), *part.rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def write(results: Mapping[str, Mapping[str, Any]]) -> None:
    """Put every part that was measured between its comments, and draw the plots."""
    plot_all(results, PLOTS)
    regions = {}
    for name, result in results.items():
        part = Part(result["head"], result["rows"], [Goal(**goal) for goal in result["goals"]], result["samples"])
        goals = "".join(map(_verdict, part.goals))
        regions[name] = f"{table(part)}\n{goals}" if goals else table(part)
    if results.keys() >= SUMMARY.keys():  # else keep the old ones: not all of their parts were measured now
        machines = dict.fromkeys(result["machine"] for result in results.values())
        regions["machine"] = "".join(f"{machine}.\n" for machine in machines)
        regions["summary"] = _summary(results)
    if "flush" in results:
        regions["pause"] = pause(results["flush"]["rows"])
    for file in (PAGE, README):
        text = file.read_text("utf-8")
        file.write_text(re.sub(r"(<!-- bench:(\S+) -->\n).*?(<!-- /bench -->)", _put(regions), text, flags=re.DOTALL))


def _verdict(goal: Goal) -> str:
    return f"- {goal.what}: **{goal.shown}** of at most {goal.limit:g} {goal.unit}, {'met' if goal.met else 'missed'}\n"


def _put(regions: Mapping[str, str]) -> Any:
    def put(found: re.Match[str]) -> str:
        return f"{found[1]}{regions[found[2]]}{found[3]}" if found[2] in regions else found[0]

    return put


def _summary(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the README's table: a line for the first goal of each part."""
    lines = ["| what | measured | goal |\n", "| --- | --- | --- |\n"]
    for name, what in SUMMARY.items():
        goals = [Goal(**each) for each in results.get(name, {}).get("goals", ())]
        lines += [f"| {what} | {goal.shown} | {goal.limit:g} {goal.unit} |\n" for goal in goals[:1]]
    return "".join(lines)


def pause(flush: Sequence[Sequence[str]]) -> str:
    """Return the README's first table: for how long programs fail after a flush, without the multiples."""
    figures = next(row[1:3] for row in flush if row[0] == "binfmtd")
    row = ["33 entries are flushed at once", *(figure.partition(" (")[0] for figure in figures)]
    return table(Part(["until all of them serve again, on an idle machine", "median", "p99"], [row]))


SUMMARY = {
    "builds": "removals and the like, by name, that made an execution fail",
    "flush": "33 entries are flushed: until all serve again, to the minimal C loop",
    "failures": "failed executions during 1,000 replacements",
    "upgrade": "an emulator is upgraded: until it serves",
    "idle": "wake-ups a minute when nothing happens",
    "start": "start of the daemon, to importing its packages",
}
