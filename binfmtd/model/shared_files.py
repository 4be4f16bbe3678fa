"""Of many matches, those that share a file with a given one: found without asking each.

Most magics have one of a few masks.  Under one mask, two magics share a file only if their bits are the same; under two
masks, if they are where both masks care.  So for each pair of these masks the bits are looked up in a table, if there
are enough of them, and what takes time is the number of masks, not of matches.  What is compared is what ``overlap``
(match.py) compares.
"""

from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

from binfmtd.model.match import Extension, Match

T = TypeVar("T")
FEW = 8  # under one mask: to ask each is as fast, and takes no memory


class SharedFiles(Generic[T]):
    """Values, each under a match."""

    def __init__(self, values: Iterable[tuple[Match, T]]) -> None:
        self._by_extension: dict[str, list[T]] = {}
        self._by_mask: dict[int, dict[int, list[T]]] = {}  # bits that are compared -> their values
        self._tables: dict[tuple[int, int], dict[int, list[T]]] = {}
        for match, value in values:
            if isinstance(match, Extension):
                self._by_extension.setdefault(match.text, []).append(value)
            else:
                self._by_mask.setdefault(match.care, {}).setdefault(match.bits, []).append(value)

    def with_(self, match: Match) -> Iterator[T]:
        """The values whose match shares a file with this one and is of its kind, in no order; it may be among them."""
        if isinstance(match, Extension):
            yield from self._by_extension.get(match.text, ())
            return
        ours = match.care in self._by_mask  # others' masks may be any number: no table is kept for them
        for mask, by_bits in self._by_mask.items():
            common = mask & match.care
            if common == mask:
                yield from by_bits.get(match.bits & common, ())
            elif ours and len(by_bits) > FEW:
                yield from self._table(mask, common).get(match.bits & common, ())
            else:
                for bits, values in by_bits.items():
                    if not (bits ^ match.bits) & common:
                        yield from values

    def _table(self, mask: int, common: int) -> dict[int, list[T]]:
        """What is under one mask, by the bits that another mask compares as well."""
        table = self._tables.get((mask, common))
        if table is None:
            table = self._tables[mask, common] = {}
            for bits, values in self._by_mask[mask].items():
                table.setdefault(bits & common, []).extend(values)
        return table
