"""Ids of user namespaces, and their renumbering."""

from hypothesis import assume, given
from hypothesis import strategies as st

from binfmtd.host.id_maps import Ids, Range


@st.composite
def ranges(draw: st.DrawFn) -> tuple[Range, ...]:
    """Draw ids in a row from 0, in several ranges."""
    place, found = 0, []
    for count in draw(st.lists(st.integers(1, 40), min_size=1, max_size=4)):
        found.append((place, 1000 + place, count))
        place += count
    return tuple(found)


def mapped(theirs: tuple[Range, ...]) -> list[int]:
    """Return the id outside for each id from 0 on; none may be left out or occur twice."""
    found: dict[int, int] = {}
    for inside, outside, count in theirs:
        for number in range(count):
            assert inside + number not in found
            found[inside + number] = outside + number
    assert sorted(found) == list(range(len(found)))
    return [found[number] for number in range(len(found))]


@given(uids=ranges(), owner=st.integers(0, 200))
def test_who_has_an_id(uids: tuple[Range, ...], owner: int) -> None:
    """The ids that are mapped, and no others, belong to users."""
    assert Ids(uids, uids).has(owner) is (owner < len(mapped(uids)))


@given(uids=ranges(), owner=st.integers(0, 100))
def test_the_owner_becomes_root(uids: tuple[Range, ...], owner: int) -> None:
    """The owner becomes 0, the ids after it follow, and the ids before it come after the last one."""
    everybody = [inside for inside, _ in enumerate(mapped(uids))]
    assume(owner in everybody)
    wanted = mapped(Ids(uids, uids).without(owner, owner).uids)
    assert wanted == everybody[owner:] + everybody[:owner]
