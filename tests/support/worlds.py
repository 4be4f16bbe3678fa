"""Worlds for hypothesis: configs that overlap in every way, hosts that lack files, kernels with foreign entries.

Few names, matches and interpreters, so that collisions are the rule.
"""

from itertools import permutations, product
from typing import NamedTuple

from hypothesis import strategies as st

from binfmtd.model.config import Config, HandlerSpec, Policy, Shadowed, StandInPolicy, Unmanaged
from binfmtd.model.desired import DesiredState, Facts, FileIdentity, InterpreterFacts
from binfmtd.model.drift import Plan, PlanContext, Record
from binfmtd.model.entry import Entry, ObservedState
from binfmtd.model.handler import Flags, Registration
from binfmtd.model.match import Extension, Magic, Match
from binfmtd.model.ownership import foreign
from binfmtd.model.plan import plan
from binfmtd.model.resolve import resolve
from binfmtd.model.stand_in import stand_in_name
from support.simulated import SimulatedKernel

LONG = "l" * 250  # its stand-in's name is a digest
DECLARED = ("a", "b", "c", "d", "e", LONG)
OTHERS = ("WSLInterop", "python3.13", "x", "y", "z")
MATCHES: tuple[Match, ...] = (
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
# Of few bytes, under any masks.
SMALL_MAGICS = st.builds(
    lambda pairs, offset: Magic(bytes(m for m, _ in pairs), bytes(k for _, k in pairs), offset),
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=3),
    st.integers(0, 2),
)
PATHS = ("/i", "/j", "/k")
FLAGS = (Flags.NONE, Flags.F, Flags.F | Flags.P, Flags.parse("C"))

# Drawn in one go where nothing depends on it: a draw costs more than a plan.
_FILES = tuple(FileIdentity(1, inode, 9, 0, 0) for inode in (1, 2, 3))
_MATCH = st.sampled_from(MATCHES)
_FLAGS = st.sampled_from(FLAGS)
_PATHS = st.sampled_from([found for size in (1, 2) for found in permutations(PATHS, size)])
_NAMES = st.builds(lambda names, size: names[:size], st.permutations(DECLARED), st.sampled_from([5, 4, 5, 3, 2, 1, 0]))
_ARCHITECTURE = st.sampled_from([(None, False), (None, False), ("one", False), ("one", True), ("two", True)])
_PRIORITY = st.sampled_from([0, 0, 0, -1, 1])
_MOSTLY = st.sampled_from([True, True, False])
_RARELY = st.sampled_from([False, False, True])
_SAYS = st.sampled_from([None] * 20 + [Registration(*each) for each in product(MATCHES, PATHS, FLAGS)])
_INTERPRETER = st.sampled_from(
    [*map(InterpreterFacts, _FILES * 2), InterpreterFacts(), InterpreterFacts(_FILES[0], "others can write it")]
)
# By _replace: hypothesis would invent values for the missing fields of a NamedTuple.
FACTS = st.builds(
    Facts({})._replace,
    interpreters=st.fixed_dictionaries(dict.fromkeys(PATHS, _INTERPRETER)),
    native=st.sampled_from([frozenset[str](), frozenset({"one"})]),
    kernel=st.sampled_from([(6, 12), (5, 10)]),
    judges_paths=st.booleans(),
)
POLICIES = st.builds(
    Policy()._replace,
    unmanaged=st.sampled_from(Unmanaged),
    shadowed=st.sampled_from(Shadowed),
    stand_ins=st.sampled_from(StandInPolicy),
)


@st.composite
def specs(draw: st.DrawFn) -> tuple[HandlerSpec, ...]:
    found = []
    for name in draw(_NAMES):
        architecture, from_all = draw(_ARCHITECTURE)
        found.append(
            HandlerSpec(
                name,
                draw(_MATCH),
                draw(_PATHS),
                draw(_FLAGS),
                priority=draw(_PRIORITY),
                enabled=architecture is not None or draw(_MOSTLY),
                force=draw(_RARELY),
                architecture=architecture,
                from_all=from_all,
            )
        )
    return tuple(found)


class World(NamedTuple):
    """The input of a plan."""

    config: Config
    facts: Facts
    observed: ObservedState
    records: dict[str, Record]
    blamed: frozenset[str]  # names whose entries, where they are foreign and enabled, are broken or stop every exec
    exec_breaking: bool

    def desired(self) -> DesiredState:
        return resolve(self.config, self.facts)

    def context(self, observed: ObservedState, records: dict[str, Record]) -> PlanContext:
        """Return the context that the daemon would determine for these entries."""
        desired = self.desired()
        blamed = frozenset(
            entry.name
            for entry in observed.entries
            if entry.name in self.blamed and entry.enabled and foreign(entry, desired, PlanContext(records))
        )
        none: frozenset[str] = frozenset()
        return PlanContext(records, none if self.exec_breaking else blamed, blamed if self.exec_breaking else none)

    def plan(self) -> Plan:
        return plan(self.desired(), self.observed, self.context(self.observed, self.records))

    def kernel(self) -> SimulatedKernel:
        return SimulatedKernel(self.observed.entries, switched_on=self.observed.switched_on)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    config = Config(draw(specs()), draw(POLICIES))
    facts = draw(FACTS)
    by_name = resolve(config, facts).by_name
    wanted = {name: handler.registration for name, handler in by_name.items()}
    stand_ins = {stand_in_name(name): registration for name, registration in wanted.items()}
    names = [name for name in wanted if draw(_MOSTLY)]
    names += [name for name in (*stand_ins, *OTHERS, *DECLARED) if name not in wanted and draw(_RARELY)]
    entries = []
    records = {}
    for number, name in enumerate(draw(st.permutations(names))):
        says = (wanted | stand_ins).get(name)
        if says is None and wanted and draw(_RARELY):
            says = draw(st.sampled_from(list(wanted.values())))  # a foreign entry with a handler's registration
        elif says is None or draw(_RARELY):
            says = draw(_SAYS)
        # Numbers in no order: places in the listing must not follow from them.
        entry = Entry(name, 1000 + number * 7 % 29, draw(_MOSTLY), says)
        entries.append(entry)
        if says is not None and draw(st.booleans()):
            inode = draw(st.sampled_from([entry.inode, entry.inode, 1, None]))
            current = facts.interpreters[says.interpreter].file_identity
            opened_file = draw(st.sampled_from([current, current, None, _FILES[0]])) if Flags.F in says.flags else None
            records[name] = Record(says, inode, opened_file)
    switched_on = draw(_MOSTLY)
    blamed = frozenset(draw(st.lists(st.sampled_from(OTHERS), max_size=2)))
    observed = ObservedState(tuple(entries), switched_on)
    return World(config, facts, observed, records, blamed, draw(st.booleans()))


def listed(world: World, entries: tuple[Entry, ...]) -> World:
    """Return the world with its entries in another order."""
    return world._replace(observed=world.observed._replace(entries=entries))
