"""Which entries a word of ``--uninstall`` means (tonistiigi/binfmt, cmd/binfmt/main.go: parseUninstall, uninstall).

A platform becomes QEMU's name.  The word is a glob over the entries' names; where that finds none, it means those that
end in ``-WORD``.  WSLInterop and its like are never meant, nor are stand-ins.
"""

from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase

from binfmtd.cli.compat.platforms import architecture_of
from binfmtd.model.standin import is_stand_in

_SPARED = "WSLInterop*"


def select(words: str, names: Iterable[str]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """For each line of the log: what it calls the entry, and the entries that go; none where nothing was found."""
    eligible = sorted(name for name in names if not is_stand_in(name) and not fnmatchcase(name, _SPARED))
    for word in filter(None, words.split(",")):
        architecture = architecture_of(word)
        wanted = architecture.name if architecture else word
        # Go negates a set of characters by ^, fnmatch by !.
        matching = [name for name in eligible if fnmatchcase(name, wanted.replace("[^", "[!"))]
        matching = matching or [name for name in eligible if name == wanted]  # its name has a glob's characters
        if matching:
            yield from ((name, (name,)) for name in matching)
        else:
            yield wanted, tuple(name for name in eligible if name.endswith(f"-{wanted}"))
