"""The report's plots, as SVG."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")
from matplotlib import pyplot as plt
from matplotlib.ticker import LogLocator, NullLocator

# Equal figures give equal files, which are readable on light and dark pages.
mpl.rcParams |= {
    "svg.hashsalt": "binfmtd",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "white",
}
COLOURS = {
    "C loop, real-time": "#4a4a4a",
    "C loop": "#888888",
    "least in Python": "#b0b0b0",
    "bare pyinotify": "#d98c3f",
    "systemd-binfmt": "#7b5ea7",
    "binfmtd": "#1f77b4",
    "no daemon": "#c44e52",
    "default": "#1f77b4",
    "sealed": "#2a9d5c",
}
# The modes that are drawn, in this order, and their words in the legend.
BUILDS = {
    "no daemon": "no daemon",
    "C loop, real-time": "C loop, real-time",
    "C loop": "C loop",
    "least in Python": "least in Python",
    "bare pyinotify": "bare pyinotify",
    "default": "binfmtd, by default",
    "sealed": "binfmtd, sealed",
}
Results = Mapping[str, Mapping[str, Any]]


def plot_all(results: Results, directory: Path) -> None:
    """Draw the plots for which all parts were measured."""
    directory.mkdir(exist_ok=True)
    if {"builds", "builds-peers"} <= results.keys():
        _builds(results, directory / "builds.svg")
    if "removal" in results:
        _removal(results["removal"]["samples"], directory / "removal.svg")
    if "reload" in results:
        _reload(results["reload"]["samples"], directory / "reload.svg")
    if "failures" in results:
        _failures(results["failures"]["rows"], directory / "failures.svg")
    if {"start", "one-shot", "commands"} <= results.keys():
        _starts(results, directory / "start.svg")


def _save(figure: Any, path: Path) -> None:
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def _builds(results: Results, path: Path) -> None:
    """Draw the share of disturbances that broke a build: a group of bars for each, and a bar for each mode."""
    shares = {**results["builds"]["samples"], **results["builds-peers"]["samples"]}
    modes = [*results["builds-peers"]["head"][1:], *(mode for mode in results["builds"]["head"][1:] if mode in COLOURS)]
    modes.sort(key=list(BUILDS).index)
    whats = [row[0] for row in results["builds"]["rows"]]
    figure, axes = plt.subplots(figsize=(7, 9))
    ticks = []
    place = 0.0
    for what in whats:
        there = [mode for mode in modes if f"{mode}: {what}" in shares]
        places = [place + number for number in range(len(there))]
        percents = [100 * shares[f"{mode}: {what}"][0] for mode in there]
        axes.barh(places, percents, height=0.9, color=[COLOURS[mode] for mode in there])
        for y, percent, mode in zip(places, percents, there, strict=True):  # in its colour, as 0 % has no bar
            axes.text(percent + 1, y, f"{percent:.3g} %", va="center", fontsize=6.5, color=COLOURS[mode])
        ticks.append(sum(places) / len(places))
        place = places[-1] + 1.7
    axes.set_yticks(ticks, whats)
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()
    axes.margins(y=0.01)
    axes.set_xlim(0, 112)
    axes.set_xticks(range(0, 101, 20))
    axes.set_xlabel("% of disturbances during which an execution failed")
    for mode in modes:
        axes.plot([], [], color=COLOURS[mode], linewidth=6, label=BUILDS[mode])
    axes.legend(frameon=False, ncols=3, loc="lower right", bbox_to_anchor=(1, 1))
    _save(figure, path)


def _removal(samples: Mapping[str, Sequence[float]], path: Path) -> None:
    """Draw each contestant's times at each number of entries: the middle half as a box, whiskers to p1 and p99."""
    counts = sorted({int(name.rpartition(", ")[2]) for name in samples})
    who = list(dict.fromkeys(name.rpartition(", ")[0] for name in samples))
    figure, axes = plt.subplots(figsize=(7, 3.2))
    for place, name in enumerate(who):
        boxes = axes.boxplot(
            [[time * 1e6 for time in samples[f"{name}, {count}"]] for count in counts],
            positions=[number * (len(who) + 1) + place for number in range(len(counts))],
            whis=(1, 99),
            showfliers=False,
            widths=0.7,
            patch_artist=True,
            medianprops={"color": "black"},
        )
        for box in boxes["boxes"]:
            box.set_facecolor(COLOURS[name])
        axes.plot([], [], color=COLOURS[name], linewidth=6, label=name)
    axes.set_xticks([number * (len(who) + 1) + (len(who) - 1) / 2 for number in range(len(counts))])
    axes.set_xticklabels([f"{count:,}" for count in counts])
    axes.set_xlabel("entries in the instance")
    axes.set_ylabel("us until a handler is back")
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.legend(frameon=False, ncols=len(who), loc="lower center", bbox_to_anchor=(0.5, 1))
    _save(figure, path)


def _reload(samples: Mapping[str, Sequence[float]], path: Path) -> None:
    figure, axes = plt.subplots(figsize=(5, 3))
    for what in dict.fromkeys(name.rpartition(", ")[0] for name in samples):
        counts = sorted(int(name.rpartition(", ")[2]) for name in samples if name.startswith(f"{what}, "))
        times = [sorted(samples[f"{what}, {count}"])[len(samples[f"{what}, {count}"]) // 2] * 1e3 for count in counts]
        axes.plot(counts, times, marker="o", label=what)
    axes.set_xlabel("handlers")
    axes.set_ylabel("ms from SIGHUP to READY=1")
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    _save(figure, path)


def _failures(rows: Sequence[Sequence[str]], path: Path) -> None:
    figure, axes = plt.subplots(figsize=(7, 1.8))
    names = [row[0] for row in rows][::-1]
    shares = [float(row[4].removesuffix(" %").replace(",", "")) for row in rows][::-1]
    bars = axes.barh(names, shares, color=["#1f77b4" if name.startswith("binfmtd") else "#7b5ea7" for name in names])
    axes.bar_label(bars, [f" {row[3]} failed" for row in rows][::-1])
    axes.set_xlabel("% of executions that failed")
    axes.margins(x=0.3)  # room for the last label
    _save(figure, path)


def _starts(results: Results, path: Path) -> None:
    """Draw the medians of whole processes."""
    figure, axes = plt.subplots(figsize=(7, 5))
    found: dict[str, float] = {}
    for part in ("commands", "one-shot", "start", "sandbox"):
        for name, times in results.get(part, {}).get("samples", {}).items():
            found.setdefault(name, sorted(times)[len(times) // 2] * 1e3)
    names = sorted(found, key=found.__getitem__, reverse=True)
    others = ("import", "python", "the same", "the two", "unshare", "systemd", "update")
    bars = axes.barh(
        names,
        [found[name] for name in names],
        color=["#999999" if name.startswith(others) else "#1f77b4" for name in names],
    )
    axes.bar_label(bars, fmt=" %.0f")
    axes.margins(x=0.1)  # room for the last label
    axes.set_xlabel("ms")
    _save(figure, path)
