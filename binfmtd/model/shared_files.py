"""Find those of many matches that share a file with a given one, without a comparison with each.

Most magics have one of a few masks.  Under one mask, two magics share a file only if their bits are equal.  Under two
masks, they share one if their bits are equal wherever both masks compare.  So for each pair of masks the bits are
looked up in a table, if there are enough of them.  The time depends on the number of masks, not on that of matches.
The result agrees with ``overlap`` (match.py) for two matches of one kind.
"""

from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

from binfmtd.model.match import Extension, Match

T = TypeVar("T")
FEW = 8  # under one mask: comparing each is as fast, and takes no memory


class SharedFiles(Generic[T]):
    """A multimap from matches to values, with a search for matches that share a file."""

    def __init__(self, values: Iterable[tuple[Match, T]]) -> None:
        self._by_extension: dict[str, list[T]] = {}
        self._by_mask: dict[int, dict[int, list[T]]] = {}  # mask -> compared bits -> values
        self._tables: dict[tuple[int, int], dict[int, list[T]]] = {}
        for match, value in values:
            if isinstance(match, Extension):
                self._by_extension.setdefault(match.text, []).append(value)
            else:
                self._by_mask.setdefault(match.care, {}).setdefault(match.bits, []).append(value)

    def with_(self, match: Match) -> Iterator[T]:
        """Yield the values whose match is of the same kind and shares a file with ``match``, in no particular order.

        If ``match`` itself is stored, its values are among them.
        """
        if isinstance(match, Extension):
            yield from self._by_extension.get(match.text, ())
            return
        ours = match.care in self._by_mask  # foreign entries may have any number of masks: no table is kept for those
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
        """Return the values under one mask, by the bits that another mask compares as well."""
        table = self._tables.get((mask, common))
        if table is None:
            table = self._tables[mask, common] = {}
            for bits, values in self._by_mask[mask].items():
                table.setdefault(bits & common, []).extend(values)
        return table
