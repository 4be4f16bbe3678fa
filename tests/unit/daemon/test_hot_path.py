"""What the hot path does with what it hears while it looks: a flush goes on, others register again."""

from collections.abc import Callable
from typing import cast

import pytest
from support.simulated import SimulatedKernel, Through

from binfmtd.daemon.heard import Heard
from binfmtd.daemon.hot_path import HotPath, Reaction
from binfmtd.daemon.look import Look
from binfmtd.kernel.instance import Instance
from binfmtd.kernel.write import Writer
from binfmtd.model.desired import DesiredState
from binfmtd.model.drift import Drift, Surroundings
from binfmtd.model.handler import Flags, Handler, Registration
from binfmtd.model.match import Magic
from binfmtd.model.plan import INSTANCE, plan
from binfmtd.model.standin import stand_in_name

# Both of A and B take what begins with AB; C takes nothing that they do.
A, B, C = (
    Handler(name, Registration(Magic(magic), "/i", Flags.NONE))
    for name, magic in (("a", b"A"), ("b", b"AB"), ("c", b"C"))
)
HANDLERS = (A, B, C)


class World:
    """Three handlers in order on a simulated kernel, and the hot path that has seen them."""

    def __init__(self) -> None:
        self.kernel = SimulatedKernel()
        for handler in HANDLERS:
            self.kernel.register(handler.name, handler.registration)
        self.desired = DesiredState(HANDLERS)
        self.listened = 0
        self.see()

    def see(self, may: Callable[[str], bool] = lambda _: True) -> None:
        """Look at everything, as a pass does; ``may``: which are not backed off from."""
        observed = self.kernel.observed()
        look = Look(observed, self.desired, Surroundings(), plan(self.desired, observed, Surroundings()))
        self.hot = HotPath(look, (), may, may, lambda _: True)

    def react(self, heard: Heard, meanwhile: Callable[[], Heard] = Heard) -> Reaction:
        """Let it answer; ``meanwhile`` happens after its first look."""

        def listen() -> Heard:
            self.listened += 1
            return meanwhile()

        through = Through(self.kernel)
        return self.hot.react(heard, listen, cast(Instance, through), cast(Writer, through))

    def flush(self) -> None:
        """Take the rest away."""
        for entry in self.kernel.observed().entries:
            self.kernel.remove(entry.name)

    def names(self) -> list[str]:
        return [entry.name for entry in self.kernel.observed().entries]


@pytest.fixture
def world() -> World:
    return World()


def written(name: str) -> Heard:
    """Somebody wrote to this entry's file."""
    heard = Heard([name])
    heard.written.add(name)
    return heard


STATUS = Heard(everything=True, flushed=True)


@pytest.mark.parametrize("more", [STATUS, Heard(["a", "b"])], ids=["with status", "without"])
def test_a_flush_that_goes_on_is_answered_as_a_whole(world: World, more: Heard) -> None:
    """Heard at its first removal: all get a stand-in at once, in order, and it counts as the flush that it is."""
    world.kernel.remove("c")
    heard = Heard(["c"])

    def rest() -> Heard:
        world.flush()
        return more

    reaction = world.react(heard, rest)
    assert world.names() == [stand_in_name(name) for name in ("c", "b", "a")]
    assert reaction.found == dict.fromkeys("abc", Drift.MISSING)
    assert heard.flushed


def test_one_that_nobody_wrote_to_is_no_flush(world: World) -> None:
    """As long as another handler has its entry."""
    world.kernel.remove("c")
    heard = Heard(["c"])
    assert list(world.react(heard).found) == ["c"]
    assert not heard.flushed


def test_what_is_known_to_be_gone_proves_no_flush(world: World) -> None:
    """All were removed by name and have stand-ins: whoever registers something after that has taken nothing away."""
    for name in "abc":
        world.kernel.remove(name)
        world.react(written(name))
    heard = Heard(everything=True)
    assert set(world.react(heard).found) == {"a", "b", "c"}
    assert not heard.flushed
    world.flush()
    assert len(world.react(heard).bridged) == 3
    assert heard.flushed


def test_what_is_backed_off_from_proves_no_flush(world: World) -> None:
    """Nor does it where no stand-in is left."""
    world.see(lambda _: False)
    for name in "abc":
        world.kernel.remove(name)
        world.react(written(name))
    heard = Heard(everything=True)
    world.react(heard)
    assert not heard.flushed


def test_what_is_kept_disabled_outlasts_no_flush(world: World) -> None:
    """Its entry is one of ours: while it is there, what else is gone was removed by name."""
    world.desired = DesiredState((A, B._replace(enabled=False)))
    world.see()
    world.kernel.remove("a")
    heard = Heard(everything=True)
    assert list(world.react(heard).found) == ["a"]
    assert not heard.flushed


def test_a_removal_that_was_written_is_answered_at_once(world: World) -> None:
    """There is nothing to wait for."""
    world.kernel.remove("c")
    world.react(written("c"))
    assert world.names()[0] == stand_in_name("c")
    assert world.listened == 0


def test_what_is_back_meanwhile_has_not_drifted(world: World) -> None:
    """Its owner registered it again: no stand-in, and nothing is told of it."""
    world.kernel.remove("c")

    def back() -> Heard:
        world.kernel.register("c", C.registration)
        return Heard(everything=True)

    reaction = world.react(Heard(["c"]), back)
    assert (reaction.found, reaction.bridged) == ({}, [])


def test_what_was_enabled_and_is_removed_meanwhile(world: World) -> None:
    """The second event names the same entry as the first, and is a removal."""
    world.kernel.switch("a", enabled=False)
    world.kernel.remove("c")
    heard = written("a")
    heard.names.add("c")

    def gone() -> Heard:
        assert world.kernel.observed().by_name["a"].enabled
        world.kernel.remove("a")
        return written("a")

    reaction = world.react(heard, gone)
    assert reaction.ended == {"a": Drift.DISABLED}
    assert reaction.found["a"] is Drift.MISSING
    # B is above it and there, so what takes B's files must not come on top.
    assert reaction.bridged == ["c"]


def test_out_of_order_is_found_again(world: World) -> None:
    """Somebody registers the lower one anew while another goes: the higher one gets its stand-in all the same."""
    world.kernel.remove("c")

    def lower_anew() -> Heard:
        world.kernel.remove("a")
        world.kernel.register("a", A.registration)
        return Heard(everything=True)

    heard = Heard(["c"], everything=True)
    world.kernel.remove("a")
    world.kernel.register("a", A.registration)
    reaction = world.react(heard, lower_anew)
    assert reaction.found["b"] is Drift.OUT_OF_ORDER
    assert set(reaction.bridged) == {"b", "c"}


def test_switched_off_while_it_looks(world: World) -> None:
    """Heard in the middle, undone in the second look."""
    world.kernel.remove("c")

    def off() -> Heard:
        world.kernel.switched_on = False
        return STATUS

    reaction = world.react(Heard(["c"]), off)
    assert world.kernel.switched_on
    assert reaction.ended == {INSTANCE: Drift.SWITCHED_OFF}
    assert reaction.bridged == ["c"]
