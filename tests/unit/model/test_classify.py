"""The kind of drift of one entry, the most serious first."""

import pytest

from binfmtd.model.classify import classify_drift, one_write_ends
from binfmtd.model.drift import Drift
from binfmtd.model.entry import Entry
from binfmtd.model.handler import Flags, Handler, Registration
from binfmtd.model.match import Magic

OURS = Registration(Magic(b"A"), "/i", Flags.NONE)
HANDLER = Handler("a", OURS)
OFF = HANDLER._replace(enabled=False)
WITH_F = HANDLER._replace(registration=OURS._replace(flags=Flags.F))
OTHER = OURS._replace(interpreter="/j")


def entry(registration: Registration = OURS, *, enabled: bool = True) -> Entry:
    return Entry("a", 1, enabled, registration)


@pytest.mark.parametrize(
    ("handler", "found", "stale", "drift", "in_one_write"),
    [
        (HANDLER, entry(), None, None, False),
        (HANDLER, None, None, Drift.MISSING, False),
        (HANDLER, entry(OTHER, enabled=False), None, Drift.CHANGED, False),
        (HANDLER, entry(enabled=False), None, Drift.DISABLED, True),
        (HANDLER, entry(), "another file", None, False),
        (WITH_F, entry(WITH_F.registration), "another file", Drift.STALE_INTERPRETER, False),
        (WITH_F, entry(WITH_F.registration), None, None, False),
        (OFF, None, None, None, False),
        (OFF, entry(OTHER), None, Drift.CHANGED, True),
        (OFF, entry(OTHER, enabled=False), None, None, False),
    ],
)
def test_drift(
    handler: Handler, found: Entry | None, stale: str | None, drift: Drift | None, in_one_write: bool
) -> None:
    """Each difference has one kind, with a reason; some need one write and no stand-in."""
    result = classify_drift(handler, found, stale)
    assert (None if result is None else result[0]) is drift
    if result is not None:
        assert result[1]
        assert one_write_ends(result[0], handler) is in_one_write
