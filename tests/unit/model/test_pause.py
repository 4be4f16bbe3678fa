"""Pauses: the names that they hold, and their ends."""

from binfmtd.model.config import Policy, Unmanaged
from binfmtd.model.desired import DesiredState
from binfmtd.model.drift import Act, PlanContext
from binfmtd.model.entry import Entry, ObservedState
from binfmtd.model.handler import Flags, Handler, Registration
from binfmtd.model.match import Magic
from binfmtd.model.pause import EVERYTHING, SEAL, Pauses, shown
from binfmtd.model.plan import plan

FOREVER = float("inf")
SAYS = Registration(Magic(b"A"), "/i", Flags.NONE)


def test_what_holds() -> None:
    """A pause holds the names that it has, or every name; one of the seal holds no entry."""
    assert Pauses({"a": 1.0}).hold("a")
    assert not Pauses({"a": 1.0}).hold("b")
    assert Pauses({EVERYTHING: 1.0}).hold("b")
    assert not Pauses().hold("a")
    assert not Pauses({SEAL: 1.0}).hold("a")
    assert [shown(name) for name in ("a", EVERYTHING, SEAL)] == ["a", "everything", "the seal"]


def test_how_it_begins_and_ends() -> None:
    """A pause of a paused name replaces its end; pauses end in time, or are resumed by name or all together."""
    pauses = Pauses().with_(["a", "b"], 5.0).with_(["a"], 7.0).with_([], FOREVER)
    assert pauses.until == {"a": 7.0, "b": 5.0, EVERYTHING: FOREVER}
    assert pauses.end_at() == 5.0
    assert pauses.at(5.0).until == {"a": 7.0, EVERYTHING: FOREVER}
    assert pauses.without(["a"]).until == {"b": 5.0, EVERYTHING: FOREVER}
    assert pauses.without([]) == Pauses()
    assert Pauses().end_at() == FOREVER


def test_a_plan_leaves_out_what_is_paused() -> None:
    """A paused entry is neither registered, enabled nor removed; one that stops every exec is disabled."""
    handlers = tuple(Handler(name, SAYS) for name in ("a", "b"))
    desired = DesiredState(handlers, policy=Policy(unmanaged=Unmanaged.REMOVE))
    entries = (Entry("theirs", 1, enabled=True, registration=SAYS), Entry("brick", 2, enabled=True, registration=SAYS))
    observed = ObservedState(entries, switched_on=False)

    def planned(pauses: Pauses) -> set[tuple[Act, str]]:
        context = PlanContext(exec_breaking=frozenset({"brick"}), pauses=pauses)
        return {(action.act, action.entry) for action in plan(desired, observed, context).actions}

    everything = planned(Pauses())
    assert {(Act.REGISTER, "a"), (Act.REGISTER, "b"), (Act.REMOVE, "theirs"), (Act.ENABLE, "status")} < everything
    assert planned(Pauses({"a": FOREVER})) == everything - {(Act.REGISTER, "a")}
    assert planned(Pauses({EVERYTHING: FOREVER})) == {(Act.DISABLE, "brick")}
