"""The sentence that `systemctl status` shows."""

from typing import Any

import pytest

from binfmtd.report.sentence import counted, sentence, verdict


def document(*states: str, repairs: int = 0, problem: str | None = None, error: str | None = None) -> dict[str, Any]:
    return {
        "handlers": [{"state": state} for state in states],
        "repairs": repairs,
        "problem": problem,
        "lacking": None,
        "mount": {"directory": "/m"},
        "config": {"error": error},
    }


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (document("registered", "registered"), "2 handlers in order"),
        (document("registered", repairs=1), "1 handler in order, 1 repair"),
        (document("waiting", "registered", "disabled", repairs=4), "2 handlers in order, 1 waiting, 4 repairs"),
        (document("stand_in", "refused", "waiting"), "0 handlers in order, 1 refused, 1 stand in, 1 waiting"),
        (document("registered", problem="no watch"), "no watch; 1 handler in order"),
        (document(problem="not mounted") | {"mount": None}, "not mounted"),
        (document() | {"lacking": "no emulator"}, "0 handlers in order; no emulator"),
        # For sd_notify a line is a state.
        (document(problem="x\nWATCHDOG=trigger"), "x\\nWATCHDOG=trigger; 0 handlers in order"),
        (
            document("registered", error="f: bad"),
            "1 handler in order; the config files are invalid now, and the previous config is in force",
        ),
    ],
)
def test_the_order_of_the_sentence(given: dict[str, Any], says: str) -> None:
    """The sentence has problems first, then handlers in order, other handlers by state, repairs, and the config."""
    assert sentence(given) == says


def rows(**reasons: str) -> list[dict[str, str]]:
    return [{"name": "fine", "state": "registered", "reason": ""}] + [
        {"name": name, "state": "waiting", "reason": reason} for name, reason in reasons.items()
    ]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"state": "converged"}, "1 handler in order"),
        ({"state": "converged", "handlers": []}, "0 handlers in order"),
        ({"state": "waiting", "handlers": rows(a="no file")}, "waiting: a: no file"),
        ({"state": "waiting", "handlers": rows(a="no file", b="none")}, "waiting: a: no file (and 1 more)"),
        ({"state": "degraded", "problem": "no\nwatch", "handlers": rows(a="x")}, "degraded: no\\nwatch (and 1 more)"),
        ({"state": "drifting"}, "drifting: 1 handler in order"),
    ],
)
def test_verdict(given: dict[str, Any], says: str) -> None:
    """A health check gets one line: the sentence, or the first reason why the state is not converged."""
    assert verdict(document("registered") | {"handlers": rows()} | given) == says


def test_counted() -> None:
    """One of a thing has no plural."""
    assert [counted(1, "pass"), counted(2, "pass"), counted(0, "repair")] == ["1 pass", "2 passes", "0 repairs"]
