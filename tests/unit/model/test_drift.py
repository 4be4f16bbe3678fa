"""The kinds of drift, and the actions that end them."""

import pytest

from binfmtd.model.drift import Act, Action, Drift, additive
from binfmtd.model.stand_in import stand_in_name


@pytest.mark.parametrize("act", list(Act))
def test_who_only_adds_removes_nothing_but_stand_ins(act: Act) -> None:
    """An action is additive unless it removes an entry other than a left-over stand-in."""
    assert additive(Action(act, "one", Drift.UNWANTED, "")) is (act is not Act.REMOVE)
    assert additive(Action(act, stand_in_name("one"), Drift.UNWANTED, ""))


def test_drifts_of_a_registration() -> None:
    """The log describes the difference for these kinds alone, and only these can be a dispute between two daemons."""
    assert [drift for drift in Drift if drift.differs] == [Drift.CHANGED]
