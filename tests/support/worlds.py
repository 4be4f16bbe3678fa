"""Worlds for hypothesis: configs that overlap in every way, hosts that lack things, kernels that others have been at.

Few names, matches and interpreters, so that collisions are the rule.
"""

from dataclasses import dataclass, replace

from hypothesis import strategies as st

from binfmtd.model.config import Config, Declaration, Policy, Shadowed, Unmanaged
from binfmtd.model.desired import DesiredState, Facts, Fingerprint, InterpreterFacts, resolve
from binfmtd.model.drift import Plan, Record, Surroundings
from binfmtd.model.entry import Entry, ObservedState
from binfmtd.model.handler import Flags, Registration
from binfmtd.model.match import Extension, Magic
from binfmtd.model.ownership import foreign
from binfmtd.model.plan import plan
from binfmtd.model.standin import stand_in_name
from support.simulated import SimulatedKernel

LONG = "l" * 250  # its stand-in's name is a digest
DECLARED = ("a", "b", "c", "d", "e", LONG)
OTHERS = ("WSLInterop", "python3.13", "x", "y", "z")
MATCHES = (
    Magic(b"A"),
    Magic(b"AB"),
    Magic(b"AC"),
    Magic(b"A\0", b"\xff\x00"),  # takes the same as A
    Magic(b"B", offset=1),
    Magic(b"C", offset=1),
    Magic(b"D"),
    Magic(b"E"),
    Magic(b"\x7fELF"),  # takes native programs: refused without force
    Extension("jar"),
    Extension("py"),
)
PATHS = ("/i", "/j", "/k")
FLAGS = (Flags.NONE, Flags.F, Flags.F | Flags.P, Flags.parse("C"))

_FILES = st.builds(Fingerprint, st.just(1), st.integers(1, 3), st.just(9), st.just(0), st.just(0))
_MATCH = st.sampled_from(MATCHES)
_REGISTRATIONS = st.builds(Registration, _MATCH, st.sampled_from(PATHS), st.sampled_from(FLAGS))

INTERPRETER_FACTS = st.one_of(
    st.builds(InterpreterFacts, _FILES),
    st.builds(InterpreterFacts, _FILES),  # most are in order
    st.just(InterpreterFacts()),
    st.builds(InterpreterFacts, _FILES, st.just("/i can be written by all")),
)
FACTS = st.builds(
    Facts,
    interpreters=st.fixed_dictionaries({path: INTERPRETER_FACTS for path in PATHS}),
    native=st.sampled_from([frozenset[str](), frozenset({"one"})]),
    kernel=st.sampled_from([(6, 12), (5, 10)]),
    judges_paths=st.booleans(),
)
POLICIES = st.builds(Policy, unmanaged=st.sampled_from(Unmanaged), shadowed=st.sampled_from(Shadowed))


@st.composite
def declarations(draw: st.DrawFn) -> tuple[Declaration, ...]:
    names = draw(st.lists(st.sampled_from(DECLARED), unique=True, max_size=5))
    found = []
    for name in names:
        architecture = draw(st.sampled_from([None, "one", "two"]))
        found.append(
            Declaration(
                name,
                draw(_MATCH),
                tuple(draw(st.lists(st.sampled_from(PATHS), unique=True, min_size=1, max_size=2))),
                draw(st.sampled_from(FLAGS)),
                priority=draw(st.sampled_from([0, 0, 0, -1, 1])),
                enabled=architecture is not None or draw(st.sampled_from([True, True, False])),
                force=draw(st.sampled_from([False, False, True])),
                architecture=architecture,
                from_all=architecture is not None and draw(st.booleans()),
            )
        )
    return tuple(found)


@dataclass(frozen=True)
class World:
    """Everything that a plan is made of."""

    config: Config
    facts: Facts
    observed: ObservedState
    records: dict[str, Record]
    blamed: frozenset[str]  # names whose entries, where they are foreign and enabled, are broken or bricking
    bricking: bool

    def desired(self) -> DesiredState:
        return resolve(self.config, self.facts)

    def surroundings(self, observed: ObservedState, records: dict[str, Record]) -> Surroundings:
        """What the daemon would find out about these entries."""
        desired = self.desired()
        blamed = frozenset(
            entry.name
            for entry in observed.entries
            if entry.name in self.blamed and entry.enabled and foreign(entry, desired, Surroundings(records))
        )
        nobody: frozenset[str] = frozenset()
        return Surroundings(records, nobody if self.bricking else blamed, blamed if self.bricking else nobody)

    def plan(self) -> Plan:
        return plan(self.desired(), self.observed, self.surroundings(self.observed, self.records))

    def kernel(self) -> SimulatedKernel:
        return SimulatedKernel(self.observed.entries, switched_on=self.observed.switched_on)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    config = Config(draw(declarations()), draw(POLICIES))
    facts = draw(FACTS)
    by_name = resolve(config, facts).by_name
    wanted = {name: handler.registration for name, handler in by_name.items()}
    wanted |= {stand_in_name(name): registration for name, registration in wanted.items()}
    some = DECLARED + OTHERS + tuple(map(stand_in_name, DECLARED[-2:] + tuple(by_name)[:1]))
    names = draw(st.lists(st.sampled_from(some), unique=True, max_size=8))
    entries = []
    records = {}
    for number, name in enumerate(names):
        as_wanted = name in wanted and draw(st.sampled_from([True, True, False]))
        says = wanted[name] if as_wanted else draw(st.one_of(st.none(), _REGISTRATIONS, _REGISTRATIONS))
        # Numbers in no order: places in the listing must not follow from them.
        entry = Entry(
            name, 1000 + number * 7 % 11, enabled=draw(st.sampled_from([True, True, False])), registration=says
        )
        entries.append(entry)
        if says is not None and draw(st.booleans()):
            inode = draw(st.sampled_from([entry.inode, entry.inode, 1, None]))
            current = facts.interpreters[says.interpreter].fingerprint
            pinned = draw(st.one_of(st.just(current), st.none(), _FILES)) if Flags.F in says.flags else None
            records[name] = Record(says, inode, pinned)
    switched_on = draw(st.sampled_from([True, True, False]))
    blamed = frozenset(draw(st.lists(st.sampled_from(OTHERS), max_size=2)))
    observed = ObservedState(tuple(entries), switched_on)
    return World(config, facts, observed, records, blamed, draw(st.booleans()))


def listed(world: World, entries: tuple[Entry, ...]) -> World:
    """The same world, with its entries in another order."""
    return replace(world, observed=replace(world.observed, entries=entries))
