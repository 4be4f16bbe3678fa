"""The words of ``architectures``: ``all``, the name of an architecture, or ``-`` and the name of one to leave out.

A list that ``--arch`` or a later file replaces is not checked, unless the mistakes of its file are listed anyway.
"""

from collections.abc import Iterator, Sequence

from binfmtd.catalog.names import find
from binfmtd.config.tables import dotted
from binfmtd.errors import FormatError

ALL = "all"


def mistakes(words: Sequence[object]) -> Iterator[tuple[str, str]]:
    """Yield key and reason of each word that names no architecture; what is no text has been reported elsewhere."""
    for place, word in enumerate(words):
        if not isinstance(word, str) or word == ALL:
            continue
        key, plain = dotted("architectures", place), word.removeprefix("-")
        if plain.strip().lower() == ALL:
            yield key, f'{word!r} is not valid: write "{ALL}" for all architectures, or [] for none'
            continue
        try:
            find(plain)
        except FormatError as error:
            yield key, str(error)
