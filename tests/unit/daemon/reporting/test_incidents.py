"""Incidents: everything that becomes one line of the log."""

from binfmtd.daemon.reporting.incidents import LONGEST, QUIET, Incidents
from binfmtd.report.happened import REPAIRED


def test_one_cause_is_one_line() -> None:
    """One cause is one line, after a second without news, with the longest durations, whatever passes it took."""
    incidents = Incidents()
    for number in range(31):
        incident = incidents.of(REPAIRED, "warning", "flushed", number * 0.1)
        words = "removed together with all other entries by another process"
        incident.add([f"e{number}"], words, "", "missing", number * 0.1)
        incident.lasted(0.0001 * number, 0.01 * number)
    assert incidents.close(3.0 + QUIET - 0.01) == []
    (incident,) = incidents.close(3.0 + QUIET)
    assert incident.line() == {
        "summary": "31 entries removed together with all other entries by another process, repaired in 3 ms",
        "entries": ["e0", "e1", "e2", "e3", "e4"],
        "count": 31,
        "drift": "missing",
        "took_ms": 300.0,
    }
    assert incidents.open() == []


def test_the_details_of_one_entry() -> None:
    """The line has the difference if one entry is concerned: of many it would be as many texts."""
    incident = Incidents().of(REPAIRED, "warning", "x", 0.0)
    incident.add(["one"], "replaced by another process", "flags are C, should be F", "changed", 0.0)
    incident.lasted(0.00034, 0.02)
    summary = "one replaced by another process, repaired in 0.34 ms: flags are C, should be F"
    assert incident.line()["summary"] == summary
    row = incident.row()
    assert (row["reason"], row["detail"]) == ("replaced by another process", "flags are C, should be F")
    incident.add(["one"], "replaced by another process", "flags are C, should be F", "changed", 0.0)
    assert incident.line()["summary"] == summary.replace(" ms:", " ms, 2 times:")
    incident.add(["two"], "replaced by another process", "flags are P, should be F", "changed", 0.0)
    assert "flags" not in incident.line()["summary"]
    assert incident.row()["detail"] is None


def test_a_permanent_stand_in_served() -> None:
    """If a permanent stand-in served, no execution failed: the line has that, and not a repair in no time."""
    incident = Incidents().of(REPAIRED, "warning", "x", 0.0)
    incident.add(["one"], "removed by another process", "", "missing", 0.0)
    incident.lasted(0.0, 0.026)
    words = "removed by another process"
    assert incident.line()["summary"] == f"one {words}, its stand-in served, registered again after 26 ms"
    incident.add(["two"], words, "", "missing", 0.0)
    assert incident.line()["summary"] == f"2 entries {words}, their stand-ins served, registered again after 26 ms"
    incident.lasted(0.001, 0.03)
    assert incident.line()["summary"] == f"2 entries {words}, repaired in 1 ms"


def test_a_replacement_is_named_before_a_removal() -> None:
    """Words about a replacement win over "removed": a flush is followed by the rules of the tool that flushed."""
    incident = Incidents().of(REPAIRED, "warning", "flushed", 0.0)
    for words, drift in (("removed", "missing"), ("replaced by X", "changed"), ("removed", "missing")):
        incident.add([words], words, "", drift, 0.0)
    assert incident.line()["summary"] == "2 entries replaced by X, repaired, 2 times"
    assert incident.line()["drift"] == "missing,changed"


def test_an_incident_that_does_not_end() -> None:
    """An incident that does not end is logged every ten seconds."""
    incidents = Incidents()
    for tenth in range(1000):
        incidents.of(REPAIRED, "warning", "x", tenth / 10).add(["a"], "x", "", None, tenth / 10)
        if over := incidents.close(tenth / 10):
            assert LONGEST <= tenth / 10 < LONGEST + QUIET
            assert over[0].row()["times"] > 90
            return
    raise AssertionError("never logged")


def test_an_urgent_incident_is_logged_at_once() -> None:
    """An urgent incident is logged at once, and what follows within ten seconds in one more line."""
    incidents = Incidents()
    logged = []
    for name, now in (("a", 0.0), ("b", 0.0), ("c", 1.0), ("d", 1.5), ("e", 11.0)):
        incidents.of("contention_started", "warning", "x", now, urgent=True).add([name], "x", "", None, now)
        if name != "a":
            logged += [(now, list(incident.names)) for incident in incidents.close(now)]
    logged += [(99.0, list(incident.names)) for incident in incidents.close(99.0)]
    assert logged == [(0.0, ["a", "b"]), (11.0, ["c", "d", "e"])]
