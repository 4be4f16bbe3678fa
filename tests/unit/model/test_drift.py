"""The words for differences, and what is done about them."""

import pytest

from binfmtd.model.drift import Act, Action, Drift, additive
from binfmtd.model.standin import stand_in_name


@pytest.mark.parametrize("act", list(Act))
def test_who_only_adds_removes_nothing_but_stand_ins(act: Act) -> None:
    """Every action but the removal of an entry is allowed; a left-over stand-in may go."""
    assert additive(Action(act, "one", Drift.UNWANTED, "")) is (act is not Act.REMOVE)
    assert additive(Action(act, stand_in_name("one"), Drift.UNWANTED, ""))
