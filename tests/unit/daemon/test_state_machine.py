"""The invariants of the state table, while other programs do anything to the entries of a simulated daemon."""

import shutil
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from support.simulated import handler
from support.simulated_daemon import SimulatedDaemon

from binfmtd.daemon.entries.entry_state import OPEN, Phase
from binfmtd.model.config import StandInPolicy
from binfmtd.model.handler import Flags, Registration
from binfmtd.model.match import Extension, Magic
from binfmtd.model.ownership import equal
from binfmtd.model.stand_in import stand_in_name

SETTLE = 0.02

HANDLERS = (
    handler("one", Magic(b"1")),
    handler("two", Magic(b"2"), flags=Flags.F),
    handler("low", Magic(b"A")),
    handler("high", Magic(b"AB")),
    handler("jar", Extension("jar"), 1),
)
THEIRS = Registration(Magic(b"1"), "/theirs", Flags.NONE)
names = st.sampled_from([each.name for each in HANDLERS])
entries = st.sampled_from([name for each in HANDLERS for name in (each.name, stand_in_name(each.name))])


class Daemon(RuleBasedStateMachine):
    """Other programs act, the daemon reacts at once or later, and time passes."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="machine-"))
        self.reacted = True

    def teardown(self) -> None:
        shutil.rmtree(self.directory)

    @initialize(stand_ins=st.sampled_from(StandInPolicy))
    def start(self, stand_ins: StandInPolicy) -> None:
        self.daemon = SimulatedDaemon(HANDLERS, self.directory, SETTLE, stand_ins=stand_ins)
        self.by_name = {each.name: each for each in HANDLERS}

    @rule(name=entries)
    def remove(self, name: str) -> None:
        self.daemon.removes(name)
        self.reacted = False

    @rule(name=entries)
    def disable(self, name: str) -> None:
        if name in self.daemon.names():
            self.daemon.kernel.switch(name, enabled=False)
            self.daemon.touches(name)
            self.reacted = False

    @rule(name=names, theirs=st.booleans())
    def register(self, name: str, theirs: bool) -> None:
        if name not in self.daemon.names():
            self.daemon.registers(name, THEIRS if theirs else self.by_name[name].registration)
            self.reacted = False

    @rule()
    def flush(self) -> None:
        self.daemon.flushes()
        self.reacted = False

    @rule(name=names, refuses=st.booleans())
    def refuse(self, name: str, refuses: bool) -> None:
        """Let the kernel refuse the name, or no longer."""
        (self.daemon.refuses.add if refuses else self.daemon.refuses.discard)(name)

    @rule()
    def react(self) -> None:
        self.daemon.react()
        self.reacted = True

    @rule(seconds=st.sampled_from([0.001, 0.01, 0.03, 0.5]))
    def wait(self, seconds: float) -> None:
        self.daemon.wait(seconds)
        self.reacted = True

    def serves(self, name: str) -> bool:
        """Return True if an enabled entry of this name is as its handler is declared."""
        owner = self.by_name[name.removeprefix(stand_in_name(""))]
        entry = self.daemon.kernel.entry(name)
        return entry is not None and entry.enabled and equal(entry.registration, owner.registration)

    @precondition(lambda self: self.reacted)
    @invariant()
    def bridged_means_that_an_entry_serves(self) -> None:
        """A name in the phase BRIDGED has its stand-in, or its owner has registered the entry again meanwhile."""
        phases = self.daemon.reconciler.states.phases()
        bridged = [name for name, phase in phases.items() if phase is Phase.BRIDGED]
        assert all(self.serves(name) or self.serves(stand_in_name(name)) for name in bridged), phases

    @precondition(lambda self: self.reacted)
    @invariant()
    def nothing_is_exposed_after_a_wake_up(self) -> None:
        states = self.daemon.reconciler.states
        exposed = [name for name, phase in states.phases().items() if phase is Phase.EXPOSED]
        assert all(map(states.is_withheld, exposed)), exposed

    @precondition(lambda self: self.reacted)
    @invariant()
    def what_serves_by_no_entry_is_open(self) -> None:
        """A handler that no entry serves has an open drift, or was refused, or belongs below one that was."""
        states = self.daemon.reconciler.states
        for name in self.by_name:
            if not (self.serves(name) or self.serves(stand_in_name(name))):
                assert states[name].phase in {*OPEN, Phase.FAILED, Phase.BLOCKED}, name

    @precondition(lambda self: self.reacted and not self.daemon.refuses)
    @rule()
    def rest(self) -> None:
        """When no other program acts any more, every entry is in order, and the daemon comes to rest."""
        self.daemon.reconciler.retry()
        self.daemon.schedule.look_later(self.daemon.now)
        self.daemon.wait(100.0)
        states = self.daemon.reconciler.states
        assert not states.open()
        assert all(self.serves(name) for name in self.by_name)
        assert all(states[name].phase is Phase.CONVERGED for name in self.by_name)


TestDaemon = Daemon.TestCase
TestDaemon.settings = settings(max_examples=60, stateful_step_count=30)
