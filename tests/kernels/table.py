"""The results of several machines as tables in Markdown, for docs/kernels.md."""

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from kernels.machine import Outcome


@dataclass(slots=True)
class Results:
    """The results of one machine's tests; the skipped by their reasons."""

    passed: int = 0
    failed: list[str] = field(default_factory=list)
    skipped: dict[str, list[str]] = field(default_factory=dict)


def table(outcomes: Mapping[str, Outcome]) -> tuple[str, bool]:
    """Return the tables, and True if every machine finished without a failed test."""
    results = {version: _read(outcome.xml) for version, outcome in outcomes.items()}
    rows = ["| kernel | which it was | passed | failed | skipped | minutes |", "| --- | --- | --- | --- | --- | --- |"]
    for version, outcome in outcomes.items():
        found = results[version]
        counts = ("no results", "", "")
        if found is not None:
            counts = (str(found.passed), str(len(found.failed)), str(sum(map(len, found.skipped.values()))))
        minutes = f"{outcome.seconds / 60:.0f}"
        rows.append("| " + " | ".join((version, outcome.release, *counts, minutes)) + " |")
    good = all(found is not None and not found.failed for found in results.values())
    return "\n".join([*rows, "", *_failed(results), *_skipped(results)]), good


def _read(xml: bytes) -> Results | None:
    if not xml:
        return None
    results = Results()
    for case in ET.fromstring(xml).iter("testcase"):
        name = f"{case.get('classname', '').rpartition('.')[2]}::{case.get('name')}"
        skipped = case.find("skipped")
        if case.find("failure") is not None or case.find("error") is not None:
            results.failed.append(name)
        elif skipped is not None:
            results.skipped.setdefault(skipped.get("message", ""), []).append(name)
        else:
            results.passed += 1
    return results


def _failed(results: Mapping[str, Results | None]) -> Iterator[str]:
    for version, found in results.items():
        yield from (f"- failed on {version}: {name}" for name in (found.failed if found else ()))


def _skipped(results: Mapping[str, Results | None]) -> Iterator[str]:
    """Yield, for each reason to skip, how many tests it left out on each kernel."""
    reasons: dict[str, list[str]] = {}
    for version, found in results.items():
        for reason, names in (found.skipped if found else {}).items():
            general = re.sub(r" \(this is [^)]*\)", "", reason)
            reasons.setdefault(general, []).append(f"{len(names)} on {version}")
    if reasons:
        yield from ("| skipped because | tests |", "| --- | --- |")
    for reason, counts in reasons.items():
        yield f"| {reason} | {', '.join(counts)} |"
