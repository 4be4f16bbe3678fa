from bisect import insort

from hypothesis import given
from hypothesis import strategies as st
from support.worlds import MATCHES, SMALL_MAGICS

from binfmtd.model.desired import DesiredState
from binfmtd.model.handler import Flags, Handler, Registration
from binfmtd.model.match import Match
from binfmtd.model.precedence import order_matters, overlaps
from binfmtd.model.shared_files import SharedFiles

ANY = st.sampled_from(MATCHES) | SMALL_MAGICS


@given(st.lists(ANY, max_size=12), st.lists(ANY, min_size=1, max_size=4))
def test_found_are_those_that_overlap(matches: list[Match], asked: list[Match]) -> None:
    """Found are exactly those of the same kind that share a file, whatever their masks, and also when asked again."""
    shared = SharedFiles((match, place) for place, match in enumerate(matches))
    for match in asked * 2:
        expected = [place for place, other in enumerate(matches) if overlaps(match, other)]
        assert sorted(shared.with_(match)) == expected


@given(st.lists(st.tuples(ANY, st.integers(-1, 1), st.booleans()), max_size=9))
def test_higher_are_those_that_contend(declared: list[tuple[Match, int, bool]]) -> None:
    """Each enabled handler's higher ones, lowest rank first, are those after it whose order to it matters."""
    handlers: list[Handler] = []
    for number, (match, priority, on) in enumerate(declared):
        handler = Handler(str(number), Registration(match, "/i", Flags.NONE), priority, on)
        insort(handlers, handler, key=lambda each: each.priority)
    enabled = [handler for handler in handlers if handler.enabled]
    expected = {
        low.name: tuple(high for high in enabled[place + 1 :] if order_matters(low, high))
        for place, low in enumerate(enabled)
    }
    assert DesiredState(tuple(handlers)).higher == expected
