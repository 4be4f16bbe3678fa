"""Select the entries that ``--uninstall`` removes (tonistiigi/binfmt, cmd/binfmt/main.go: parseUninstall, uninstall).

A word that names a platform is replaced by QEMU's name.  The word is then a glob over the entries' names.  If it
matches none, it selects the names that end in ``-WORD``: arm64 becomes aarch64, and selects qemu-aarch64.  Stand-ins
and ``WSLInterop*`` are never selected.
"""

from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase

from binfmtd.cli.compat.platforms import architecture_of
from binfmtd.model.stand_in import is_stand_in

_SPARED = "WSLInterop*"


def select(words: str, names: Iterable[str]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Return one pair for each log line: the label, and the names of the entries to remove; none if nothing matched."""
    eligible = sorted(name for name in names if not is_stand_in(name) and not fnmatchcase(name, _SPARED))
    for word in filter(None, words.split(",")):
        architecture = architecture_of(word)
        wanted = architecture.name if architecture else word
        # Go negates a set of characters by ^, fnmatch by !.
        matching = [name for name in eligible if fnmatchcase(name, wanted.replace("[^", "[!"))]
        matching = matching or [name for name in eligible if name == wanted]  # a name may contain characters of a glob
        if matching:
            yield from ((name, (name,)) for name in matching)
        else:
            yield wanted, tuple(name for name in eligible if name.endswith(f"-{wanted}"))
