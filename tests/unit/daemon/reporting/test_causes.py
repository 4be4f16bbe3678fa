"""The cause of a drift, from the events and from the entry in a name's place."""

from collections.abc import Iterable

import pytest

from binfmtd.daemon.assessment import EndedDrift
from binfmtd.daemon.entries.entry_state import Event, StateTable
from binfmtd.daemon.entries.fast_repair import FastRepairResult
from binfmtd.daemon.reporting import causes
from binfmtd.daemon.reporting.causes import Cause, Causes
from binfmtd.daemon.watches.events import PendingEvents
from binfmtd.model.drift import Act, Action, Drift
from binfmtd.model.entry import Entry
from binfmtd.model.handler import Flags, Registration
from binfmtd.model.match import Magic

OURS = Registration(Magic(b"one"), "/usr/bin/qemu-arm", Flags.F)
DEBIANS = Entry("one", 9, enabled=True, registration=OURS._replace(interpreter="/usr/libexec/qemu-binfmt/arm-binfmt-P"))
UNKNOWN = Entry("one", 9, enabled=True, registration=OURS._replace(interpreter="/x"))


def events(*written: str, flushed: bool = False) -> PendingEvents:
    found = PendingEvents(written, flushed=flushed)
    found.entries_written = set(written)
    return found


def reaction(drift: Drift, entry: Entry | None = None) -> FastRepairResult:
    found = FastRepairResult()
    found.drifts["one"] = drift
    if entry is not None:
        found.actual["one"], found.expected["one"] = entry, OURS
    return found


class World:
    """A state table, and the causes that it leads to."""

    def __init__(self) -> None:
        self.states = StateTable()
        self.causes = Causes(self.states)

    def finds(self, reaction: FastRepairResult, events: PendingEvents) -> dict[str, Cause]:
        """Take in a fast repair, and record its drifts as the daemon does."""
        found = self.causes.take_in(reaction, events)
        for name in reaction.drifts:
            self.states.apply(name, Event.DRIFTED, 0.0)
        return found

    def ends(self, drift: Drift, reason: str = "why", replaced: Iterable[Entry] = ()) -> Cause:
        """Have a pass end the drift; return its cause."""
        facts = self.states["one"].facts
        self.states.apply("one", Event.IN_ORDER)
        action = Action(Act.REPLACE, "one", drift, reason)
        ended = {"one": EndedDrift(is_repair=True, took=None, served_after=None, facts=facts)}
        (cause,) = self.causes.ended([action], {entry.name: entry for entry in replaced}, ended)
        return cause


def test_an_unmount() -> None:
    """The next pass finds what the unmount has removed; what a later pass finds missing has another cause."""
    world = World()
    world.causes.instance_lost()
    assert world.ends(Drift.MISSING).full == "removed by an unmount of binfmt_misc"
    assert world.ends(Drift.MISSING).full == "missing"
    world.causes.instance_lost()
    assert world.ends(Drift.DISABLED).full == "disabled"


@pytest.mark.parametrize(
    ("started", "entry", "words"),
    [
        (
            0.3,
            DEBIANS,
            "replaced by systemd-binfmt.service (probably with binfmt.d files of Debian's qemu-user-binfmt)",
        ),
        (0.3, UNKNOWN, "replaced by systemd-binfmt.service"),
        (3.0, DEBIANS, "replaced by another process (probably Debian's qemu-user-binfmt)"),
        (None, UNKNOWN, "replaced by another process"),
    ],
)
def test_a_flush_and_what_came_after_it(
    monkeypatch: pytest.MonkeyPatch, started: float | None, entry: Entry, words: str
) -> None:
    """A flush and the entry after it are one cause, whether a fast repair or only the pass has read that entry.

    systemd reports when it started systemd-binfmt.
    """
    monkeypatch.setattr(causes, "unit_started", lambda _: started)
    met = World()
    met.finds(reaction(Drift.MISSING), events(flushed=True))
    met.finds(reaction(Drift.CHANGED, entry), events())
    unmet = World()
    unmet.finds(reaction(Drift.MISSING), events(flushed=True))
    for cause in (met.ends(Drift.CHANGED), unmet.ends(Drift.CHANGED, replaced=[entry])):
        assert (cause.key, cause.words) == ("flushed", words)


def test_a_flush_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flush removes everything at once, whether its event comes with the removal or afterwards."""
    monkeypatch.setattr(causes, "unit_started", lambda _: 0.3)
    world = World()
    world.finds(reaction(Drift.MISSING), events())
    assert world.causes.get("one") == "removed by another process"
    world.causes.refine(events(flushed=True))
    assert world.causes.get("one") == "removed together with all other entries by another process"
    assert world.ends(Drift.MISSING).full == "removed together with all other entries by systemd-binfmt.service"
    assert world.causes.get("one") is None


def test_a_removal_by_name_is_no_flush(monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry that is removed by name was not removed by a flush, even if another process flushed just before."""
    monkeypatch.setattr(causes, "unit_started", lambda _: 0.3)
    world = World()
    world.finds(reaction(Drift.MISSING), events("one", flushed=True))
    assert world.ends(Drift.MISSING).full == "removed by another process"


def test_a_drift_without_an_event() -> None:
    """For a drift that only a pass finds, the cause has what is wrong with the entry, and no process."""
    assert World().ends(Drift.MISSING).full == "missing"
    assert World().ends(Drift.CHANGED, "flags are C, should be F").full == (
        "different from the config: flags are C, should be F"
    )


@pytest.mark.parametrize("drift", Drift)
def test_each_drift_has_its_words(drift: Drift) -> None:
    """Each drift has words, if a fast repair finds it, if a pass does, or if both do one after the other."""
    world = World()
    (cause,) = world.finds(reaction(drift), events("one")).values()
    assert cause.words
    assert world.ends(drift).words
    assert World().ends(drift).words
