"""The results of `probe --deep`, and those that an emulator's known faults let expect."""

from typing import Any

from binfmtd.catalog.deep_checks import CHECKS, DYNAMIC
from binfmtd.catalog.known_faults import known_faults
from binfmtd.host.emulations import emulation, host_conditions
from binfmtd.host.facts import kernel_version
from binfmtd.model.handler import Flags
from support.cli import Result

UNNEEDED = "clone3"  # no release of QEMU up to 11.1 has it


def platforms(result: Result) -> dict[str, dict[str, Any]]:
    """Return the platforms of the JSON document, by their names without ``linux/``."""
    return {row["platform"].removeprefix("linux/"): row for row in result.json["platforms"]}


def outcomes(row: dict[str, Any]) -> dict[str, str]:
    """Return the outcomes of one platform other than ok."""
    return {each["check"]: each["outcome"] for each in row["checks"] if each["outcome"] != "ok"}


def reason(row: dict[str, Any], check: str) -> str:
    """Return the reason of the only result of a check."""
    (text,) = (each["reason"] for each in row["checks"] if each["check"] == check)
    assert isinstance(text, str)
    return text


def expected(architecture: str, emulator: str = "", flags: Flags = Flags.F) -> dict[str, str]:
    """Return the outcomes other than ok of an architecture under an emulator, without a root tree.

    They follow from the known faults of its version; the emulator is this machine's if no path is given.
    """
    found = emulation(emulator or f"/usr/bin/qemu-{architecture}", flags)
    assert found is not None
    faults = known_faults(found, architecture, host_conditions())
    results = {fault.system_call: "missing" for fault in faults if fault.system_call} | {UNNEEDED: "unneeded"}
    results |= {check.name: "fails" for check in CHECKS for fault in faults if fault.id in check.faults}
    results |= {check.name: "untested" for check in CHECKS if kernel_version() < check.since}
    return results | {DYNAMIC: "untested"}
