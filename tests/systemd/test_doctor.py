"""``binfmtd doctor`` under systemd: its findings about units, and remedies that work as they are shown."""

from typing import Any

import pytest
from support.booted import ENTRY, UNIT, Booted
from support.waiting import wait_until

pytestmark = pytest.mark.systemd

RULES = "/etc/binfmt.d/rules.conf"


def doctor(machine: Booted, section: str, check: str) -> dict[str, Any] | None:
    result = machine.run("binfmtd", "doctor", "--json")
    assert result.stderr == ""
    found = [each for each in result.json["findings"] if (each["section"], each["check"]) == (section, check)]
    assert len(found) <= 1, found
    return found[0] if found else None


def ends(machine: Booted, section: str, check: str, level: str) -> str:
    """Assert that doctor finds it, and that its remedy ends it; return the remedy."""
    found = doctor(machine, section, check)
    assert found is not None
    assert found["level"] == level
    done = machine.run("sh", "-euc", found["remedy"])
    assert done.status == 0, done.stderr
    after = doctor(machine, section, check)
    assert after is None or after["level"] == "ok"
    return str(found["remedy"])


def test_a_service_that_was_stopped(service: Booted) -> None:
    """A stopped service is a failure; the remedy starts the unit."""
    running = doctor(service, "daemon", "runs")
    assert running is not None
    assert running["level"] == "ok"
    service.systemctl("stop", UNIT)
    assert ends(service, "daemon", "runs", "failure") == "systemctl enable --now binfmtd"
    assert service.show("ActiveState") == "active"


def test_a_systemd_binfmt_that_fails(service: Booted) -> None:
    """If systemd-binfmt fails on a rule, the remedies, in their order, remove the rule and start the unit again."""
    service.write(RULES, ":good:E::good::/usr/bin/true:\n:bad:E::bad::/usr/bin/true:Z\n")
    try:
        assert service.restart_systemd_binfmt().status != 0
        ends(service, "other_managers", "binfmt_d", "warning")
        ends(service, "other_managers", "systemd_binfmt", "warning")
        wait_until(lambda: {"good", ENTRY} <= {*service.entries()}, 30, "the rule's entry, and the daemon's again")
    finally:
        (service.root / RULES.lstrip("/")).unlink()
        assert service.restart_systemd_binfmt().status == 0


def test_a_masked_systemd_binfmt(service: Booted) -> None:
    """Doctor reports a masked systemd-binfmt, which will flush nothing."""
    service.systemctl("mask", "systemd-binfmt")
    try:
        found = doctor(service, "other_managers", "systemd_binfmt")
        assert found is not None
        assert found["text"].startswith("systemd-binfmt is masked")
    finally:
        service.systemctl("unmask", "systemd-binfmt")
