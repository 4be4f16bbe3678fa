"""The tables of `probe --deep`."""

from binfmtd.catalog.deep_checks import CheckResult, Outcome
from binfmtd.cli.deep import Probed, exceptions, summary
from binfmtd.model.probe_result import Tried


def probed(platform: str, *checks: CheckResult, runs: bool = True, reason: str = "") -> Probed:
    tried = Tried(
        platform, runs, natively=False, entry=f"qemu-{platform}", in_chroot=True, reason=reason, duration_us=1
    )
    return Probed(f"linux/{platform}", tried, checks)


OK = CheckResult("start", Outcome.OK, "", 3)
LACKS = CheckResult("clone3", Outcome.UNNEEDED, "QEMU lacks it", 4)
FAILS = CheckResult("heap", Outcome.FAILS, "brk", 5)
NO_TREE = CheckResult("dynamic", Outcome.UNTESTED, "no tree")


def test_platforms_share_a_row() -> None:
    """Platforms with the same reason share a row, whatever their times are; failures come first."""
    results = [probed("arm64", OK, LACKS, FAILS), probed("s390x", OK, LACKS._replace(duration_us=9), NO_TREE)]
    assert exceptions(results) == [
        ("CHECK", "RESULT", "PLATFORMS", "REASON"),
        ("heap", "fails", "arm64", "brk"),
        ("clone3", "unneeded", "arm64, s390x", "QEMU lacks it"),
        ("dynamic", "untested", "s390x", "no tree"),
    ]
    assert exceptions([probed("arm64", OK)]) == []


def test_summary() -> None:
    """Checks that were not made do not count; of a platform that does not run, none is made."""
    results = [probed("s390x", OK, LACKS, NO_TREE), probed("386", runs=False, reason="no entry takes it")]
    assert summary(results)[1:] == [
        ("linux/s390x", "through qemu-s390x", "1 of 2", ""),
        ("linux/386", "no", "-", "no entry takes it"),
    ]
    assert [result.passes for result in results] == [True, False]
    assert not probed("arm64", OK, FAILS).passes
